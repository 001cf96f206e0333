"""Renewal of leases on SQLite, also when files are missing, and the liveness lock of a process."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from queue_middleware.errors import DatabaseGone
from queue_middleware.settings import Settings
from queue_middleware.stores.sqlite import SQLiteStore, clocks, lease_connection
from queue_middleware.stores.sqlite.locks import dead_owners, make_owner
from tests.support.clock import ManualClock
from tests.support.database_template import create_empty_database
from tests.support.descriptors import no_files_left
from tests.support.factories import make_job
from tests.support.leases import lease_passes


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def make(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Any]:
    path = create_empty_database(tmp_path / "queue.sqlite3")
    opened: list[SQLiteStore] = []

    async def make() -> SQLiteStore:
        opened.append(SQLiteStore(Settings(database=str(path), min_free_disk=0), clock, clock.boot))
        await opened[-1].open()
        return opened[-1]

    yield make
    for store in opened:
        await store.close()


async def started(store: SQLiteStore) -> int:
    claim = (await store.submit(make_job(), start=True)).claim
    assert claim
    return claim.token


def lease_until(store: SQLiteStore) -> int:
    with closing(sqlite3.connect(store.path)) as connection:
        return connection.execute("SELECT lease_until FROM job").fetchone()[0]


async def test_a_renewal_opens_no_file(make: Any, clock: ManualClock) -> None:
    store = await make()
    token = await started(store)
    clock.advance(15)
    with no_files_left():
        assert store.renew([token]) == 1
    assert lease_until(store) == clock.boot() + 60_000


async def test_without_free_descriptors_no_owner_counts_as_dead(make: Any) -> None:
    one, other = await make(), await make()
    await started(other)
    with no_files_left():
        assert await one.rescue() == []


async def test_a_broken_connection_is_replaced(make: Any, clock: ManualClock) -> None:
    store = await make()
    token = await started(store)

    class Broken:
        in_transaction = False

        def execute(self, *_: Any) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

        def close(self) -> None: ...

    store._lease_connection._connection.close()
    store._lease_connection._connection = Broken()
    assert store.renew([token]) == 1


async def test_a_busy_connection_is_kept(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await make()
    before = store._lease_connection._connection
    before.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            store.renew(())
        other.execute("ROLLBACK")
    assert store.renew(()) == 0
    assert store._lease_connection._connection is before


async def test_a_renewal_without_leases_writes_the_heartbeat(make: Any, clock: ManualClock) -> None:
    """On a full disk it fails like the renewals of other processes, so that no lease is judged afterwards."""
    one, other = await make(), await make()
    await started(other)
    one._lease_connection._connection.execute("PRAGMA query_only = ON")  # like a full disk
    with pytest.raises(sqlite3.OperationalError):
        await lease_passes(one, clock)
    clock.advance(45)
    one._lease_connection._connection.execute("PRAGMA query_only = OFF")
    await asyncio.to_thread(one.renew, ())
    assert await one.rescue() == []


async def test_a_removed_liveness_file_is_created_again(make: Any, tmp_path: Path) -> None:
    """Cleanup programs remove files. Without its file the death of a process is noticed only when its lease ends."""
    one, other = await make(), await make()
    token = await started(one)
    (sign,) = tmp_path.glob(f"*.alive-{one.owner}")
    for meddle in (sign.unlink, lambda: _a_file(tmp_path).replace(sign)):
        meddle()
        assert one.renew([token]) == 1
        assert sign.exists()
        assert await other.rescue() == []
    one._files.liveness.disown()
    assert len(await other.rescue()) == 1
    assert one.renew(()) == 0, "and not after it was given up"
    assert dead_owners(one.path, other.owner, [one.owner]) == [one.owner]


def _a_file(folder: Path) -> Path:
    file = folder / "other"
    file.touch()
    return file


async def test_leases_are_renewed_even_if_the_liveness_file_cannot_be_created(
    make: Any, tmp_path: Path, clock: ManualClock
) -> None:
    store = await make()
    token = await started(store)
    next(tmp_path.glob("*.alive-*")).unlink()
    clock.advance(15)
    with no_files_left(), pytest.raises(OSError, match="Too many open files"):
        store.renew([token])
    assert lease_until(store) == clock.boot() + 60_000


async def test_an_owner_of_an_earlier_boot_is_dead(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease was measured on a clock that has started anew, and might never end."""
    monkeypatch.setattr(clocks, "boot_id", lambda: "aaaaaaaa")
    old = await make()
    await started(old)
    monkeypatch.setattr(clocks, "boot_id", lambda: "bbbbbbbb")
    new = await make()
    for sign in tmp_path.glob(f"*.alive-{old.owner}"):
        sign.unlink()
    assert len(await new.rescue()) == 1


@pytest.mark.parametrize(("theirs", "dead"), [("aaaaaaaa", False), ("bbbbbbbb", True), ("", False)])
def test_without_a_boot_id_the_liveness_file_decides(tmp_path: Path, theirs: str, dead: bool) -> None:
    assert bool(dead_owners(tmp_path / "db", make_owner("aaaaaaaa"), [make_owner(theirs)])) is dead
    assert dead_owners(tmp_path / "db", make_owner(""), [make_owner(theirs)]) == []


def test_the_boot_clock_advances_and_the_boot_has_an_id() -> None:
    before = clocks.boot_clock()
    assert clocks.boot_clock() >= before
    assert clocks.boot_id() == clocks.boot_id()
    assert len(clocks.boot_id()) in (0, 8)


async def test_the_heartbeat_creates_no_file(make: Any, tmp_path: Path) -> None:
    store = await make()
    store.path.unlink()
    with pytest.raises(DatabaseGone):
        store.renew(())
    with pytest.raises(sqlite3.OperationalError):
        lease_connection.open_connection(store.path, create=False)
    assert not store.path.exists()
