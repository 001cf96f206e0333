"""The SQLite filling of the storage port: one file, several processes, every answer after its fsync."""

from .store import SQLiteStore

__all__ = ["SQLiteStore"]
