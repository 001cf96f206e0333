from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from queue_middleware.stores.sqlite.connection import Connection
from queue_middleware.stores.sqlite.locks import WriteLock


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Connection]:
    """A connection to `file` with the write lock `lock`, and a table `t` with a unique number `x`."""
    lock = WriteLock(tmp_path / "lock")
    connection = await Connection(tmp_path / "file", lock).open()
    await connection.call(lambda c: c.execute("PRAGMA journal_mode = WAL").fetchall())
    await connection.call(lambda c: c.execute("CREATE TABLE t (x INTEGER PRIMARY KEY)"))
    yield connection
    await connection.close()
    lock.close()
