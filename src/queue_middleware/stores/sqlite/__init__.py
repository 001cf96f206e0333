"""The storage ports on SQLite: one file, several processes; every write is acknowledged after its fsync."""

from queue_middleware.stores.sqlite.location import database_path
from queue_middleware.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore", "database_path"]
