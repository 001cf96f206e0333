"""Known pitfalls of SQLite and aiosqlite that `connection` avoids."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from queue_middleware.errors import StoreError
from queue_middleware.stores.sqlite.connection import Connection, open_connection


def insert(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO t VALUES (NULL)")


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("synchronous", 2),
        ("foreign_keys", 1),
        ("wal_autocheckpoint", 250),
        ("trusted_schema", 0),
        ("temp_store", 2),
        ("journal_size_limit", 64 * 2**20),
    ],
)
def test_every_setting_that_durability_depends_on(tmp_path: Path, pragma: str, value: int) -> None:
    connection = open_connection(tmp_path / "file")
    assert connection.execute(f"PRAGMA {pragma}").fetchone() == (value,)
    connection.close()


async def test_a_reading_connection_cannot_write(connection: Connection, tmp_path: Path) -> None:
    reader = await Connection(tmp_path / "file", None).open()
    with pytest.raises(StoreError) as failure:
        await reader.call(insert)
    assert "readonly" in str(failure.value.__cause__)
    await reader.close()


async def test_a_cancelled_caller_leaves_no_transaction_open(connection: Connection, tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(inner: sqlite3.Connection) -> None:
        insert(inner)
        begun.set()
        assert go_on.wait(10)

    task = asyncio.create_task(connection.call(lambda inner: connection.transact(inner, lambda: slow(inner))))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await connection.call(lambda inner: inner.in_transaction) is False
    assert await connection.call(count) == 1
    other = sqlite3.connect(tmp_path / "file", timeout=0, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.close()


async def test_a_failed_transaction_is_rolled_back_and_releases_the_write_lock(connection: Connection, tmp_path: Path) -> None:
    def fail(inner: sqlite3.Connection) -> None:
        insert(inner)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await connection.call(lambda inner: connection.transact(inner, lambda: fail(inner)))
    assert await connection.call(count) == 0
    await connection.call(lambda inner: connection.transact(inner, lambda: insert(inner)))
    assert await connection.call(count) == 1


async def test_close_is_repeatable_and_checkpoints(connection: Connection, tmp_path: Path) -> None:
    await connection.call(lambda inner: connection.transact(inner, lambda: insert(inner)))
    await connection.close()
    await connection.close()
    wal = tmp_path / "file-wal"
    assert not wal.exists() or wal.stat().st_size == 0


async def test_a_connection_closes_on_a_full_disk(connection: Connection, tmp_path: Path) -> None:
    await connection.call(lambda inner: connection.transact(inner, lambda: insert(inner)))
    full = (tmp_path / "file").stat().st_size
    await connection.call(lambda inner: connection.transact(inner, lambda: [insert(inner) for _ in range(2000)]))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (full, before[1]))  # no file may grow beyond that
    try:
        await connection.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    again = open_connection(tmp_path / "file")
    assert count(again) == 2001
    again.close()


def test_the_thread_does_not_keep_the_process_alive(tmp_path: Path) -> None:
    """A second SIGINT skips the shutdown of the lifespan: nothing is closed, and the process must still end."""
    script = f"""
import asyncio
from pathlib import Path
from queue_middleware.errors import StoreError
from queue_middleware.stores.sqlite.connection import Connection
async def main():
    global connection
    connection = await Connection(Path({str(tmp_path / "file")!r}), None).open()
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20)
