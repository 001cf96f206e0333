"""The storage ports on SQLite: several processes share one file, and a write is acknowledged after its fsync.

May import: what `stores` may import, and `stores.common`.
Begin with `store`, then `connection`, `locks` and `sql`.
"""

from .administration import SQLiteAdministration
from .location import database_path
from .read_only import ReadOnlySQLiteStore
from .store import SQLiteStore

__all__ = ["ReadOnlySQLiteStore", "SQLiteAdministration", "SQLiteStore", "database_path"]
