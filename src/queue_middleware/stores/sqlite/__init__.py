"""The storage ports on SQLite: one file, several processes; every write is acknowledged after its fsync."""

from .location import database_path
from .store import SQLiteStore

__all__ = ["SQLiteStore", "database_path"]
