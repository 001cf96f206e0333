"""Info, check, backup, compaction and migration of a file, with and without processes that use it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from queue_middleware.errors import MaintenanceRefused, StoreError
from queue_middleware.jobs.models import JobState
from queue_middleware.settings import Settings
from queue_middleware.stores import administer, administration
from queue_middleware.stores.sqlite import SQLiteAdministration, SQLiteStore, backup
from queue_middleware.stores.sqlite.sql.schema import migrations
from tests.support.factories import make_job, make_response

NOW = 1_800_000_000_000


def make(path: Path, **options: Any) -> SQLiteStore:
    settings = Settings.load({"database": str(path), "min_free_disk": 0, "name": "pictures", **options}, {})
    return SQLiteStore(settings, lambda: NOW)


async def fill(store: SQLiteStore, size: int = 2) -> str:
    """One request that has ended and one that waits; the id of the one that waits."""
    ended = (await store.submit(make_job(b"x" * size, webhook="https://a.example/hook"), start=True)).claim
    assert ended
    await store.complete(ended, make_response(b"y" * size))
    return (await store.submit(make_job(b"z" * size))).request_id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that no process has open, with its keys."""
    path = tmp_path / "queue.sqlite3"

    async def create() -> None:
        store = make(path)
        await store.open()
        await fill(store, 50_000)
        await store.close()

    asyncio.run(create())
    for suffix in (".key", ".secret"):
        path.with_name(path.name + suffix).write_text(f"content of {suffix}\n")
    return path


def test_info_of_a_database_that_no_process_uses(path: Path) -> None:
    info = administer(str(path)).info()
    assert info == administration.DatabaseInfo(
        path=str(path),
        size=path.stat().st_size,
        log_size=0,
        page_size=8192,
        pages=path.stat().st_size // 8192,
        free_pages=info.free_pages,
        schema_version=migrations()[-1][0],
        known_schema_version=migrations()[-1][0],
        application="pictures",
        created_at=info.created_at,
        requests={"completed": 1, "queued": 1},
        oldest_request_at=NOW,
        oldest_unfinished_at=NOW,
        journal_mode="wal",
        synchronous="full",
        processes=0,
    )
    assert isinstance(info.created_at, int)
    assert not path.with_name(f"{path.name}-wal").exists()


async def test_info_of_a_database_in_use(path: Path) -> None:
    store = make(path)
    await store.open()
    await store.submit(make_job())
    info = administer(f"sqlite:///{path}").info()
    assert (info.processes, info.requests) == (1, {"completed": 1, "queued": 2})
    assert info.log_size == path.with_name(f"{path.name}-wal").stat().st_size > 0
    await store.close()


def test_info_of_an_earlier_schema(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite3"
    create_with_schema(path, 100)
    info = SQLiteAdministration(str(path)).info()
    assert (info.schema_version, info.created_at, info.application) == (100, None, None)
    assert (info.requests, info.oldest_request_at, info.oldest_unfinished_at) == ({}, None, None)


def create_with_schema(path: Path, version: int) -> None:
    text = dict(migrations())[version]
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"PRAGMA journal_mode = WAL; {text} PRAGMA user_version = {version};")


async def test_a_backup_of_a_database_in_use_is_complete(path: Path, tmp_path: Path) -> None:
    store = make(path)
    await store.open()
    waiting = (await store.submit(make_job())).request_id
    target = tmp_path / "backup" / "of today.sqlite3"
    target.parent.mkdir()
    made = administer(str(path)).back_up(target)
    assert made.files == [target, Path(f"{target}.key"), Path(f"{target}.secret")] == [made.database, *made.files[1:]]
    assert sorted(target.parent.iterdir()) == sorted(made.files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in made.files} == {0o600}
    assert made.size == target.stat().st_size
    assert Path(f"{target}.key").read_text() == "content of .key\n"
    later = (await store.submit(make_job())).request_id
    await store.close()

    copy = administer(str(target))
    assert copy.check() == []
    restored = make(target)
    await restored.open()
    assert (await restored.job(waiting)).state is JobState.QUEUED
    with pytest.raises(Exception, match=later):
        await restored.job(later)
    await restored.close()


async def test_a_backup_neither_waits_for_commits_nor_delays_them(path: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(backup, "_STEP", 8192)
    store = make(path)
    await store.open()
    steps: list[tuple[int, int]] = []

    def write(done: int, total: int) -> None:
        """Commit as another process does, and copy the log into the file as far as possible, between all steps."""
        steps.append((done, total))
        with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
            connection.execute("UPDATE heartbeat SET at = ?", (len(steps),))
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    target = tmp_path / "backup.sqlite3"
    administer(str(path)).back_up(target, write)
    sizes = [done for done, _ in steps]
    assert len(steps) > 10
    assert sizes == sorted(set(sizes)), "it must not begin again"
    assert sizes[-1] == steps[-1][1] == target.stat().st_size
    await store.close()
    assert administer(str(target)).check() == []
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("SELECT at FROM heartbeat").fetchone() == (0,), "it is of the moment at which it began"


def test_a_backup_of_a_damaged_database_is_refused(path: Path, tmp_path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192 * 3)
        file.write(b"\xff" * 8192 * 8)
    target = tmp_path / "backup" / "queue.sqlite3"
    target.parent.mkdir()
    with pytest.raises((MaintenanceRefused, StoreError), match=r"damaged|malformed"):
        administer(str(path)).back_up(target)
    assert list(target.parent.iterdir()) == []
    assert administer(str(path)).check()


@pytest.mark.parametrize("suffix", ["", ".key", ".secret"])
def test_a_backup_replaces_no_file(path: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / "backup.sqlite3"
    present = Path(f"{target}{suffix}")
    present.write_text("older backup")
    with pytest.raises(MaintenanceRefused, match=f"there is a file {present} already"):
        administer(str(path)).back_up(target)
    assert present.read_text() == "older backup"
    assert [file for file in tmp_path.iterdir() if file.name.startswith("backup")] == [present]


def test_a_backup_that_cannot_be_written_leaves_nothing(path: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(MaintenanceRefused, match="was not made: No such file or directory"):
        administer(str(path)).back_up(tmp_path / "missing" / "backup.sqlite3")

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=8192))
    with pytest.raises(MaintenanceRefused, match="needs 1 MiB, and 0 MiB are free"):
        administer(str(path)).back_up(tmp_path / "backup.sqlite3")
    monkeypatch.undo()

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        administer(str(path)).back_up(tmp_path / "backup.sqlite3", interrupt)

    def fail(key: Path, copy: Path) -> None:
        if key.suffix == ".secret":
            raise OSError(28, "No space left on device")
        copy.write_text("")

    monkeypatch.setattr(backup, "_copy_key", fail)
    with pytest.raises(MaintenanceRefused, match="No space left on device"):
        administer(str(path)).back_up(tmp_path / "backup.sqlite3")
    assert not [file for file in tmp_path.iterdir() if file.name.startswith("backup")]


def test_a_backup_without_keys_has_one_file(path: Path, tmp_path: Path) -> None:
    for suffix in (".key", ".secret"):
        path.with_name(path.name + suffix).unlink()
    assert administer(str(path)).back_up(tmp_path / "backup.sqlite3").files == [tmp_path / "backup.sqlite3"]


def test_check_finds_what_is_wrong_with_the_content(path: Path) -> None:
    assert administer(str(path)).check() == []
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM backlog")
        connection.execute("DELETE FROM job WHERE state = 'completed'")
    assert administer(str(path)).check() == [
        "a row belongs to nothing (2 rows)",
        "backlog is not what counting gives (4 rows)",
    ]


def test_check_finds_damaged_indexes_first(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "PRAGMA writable_schema = ON; DELETE FROM backlog;"
            "UPDATE sqlite_master SET sql = replace(sql, 'state = ''queued''', 'state = ''failed''') WHERE name = 'job_queued'"
        )
    problems = administer(str(path)).check()
    assert problems
    assert all(problem.startswith("the file is damaged: ") and "job_queued" in problem for problem in problems)


def test_check_of_another_schema_names_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite3"
    create_with_schema(path, 100)
    newest = migrations()[-1][0]
    assert administer(str(path)).check() == [
        f"the schema has version 100, and this release can check version {newest} only: run queue-middleware database migrate"
    ]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
    assert administer(str(path)).check()[0].endswith("check it with the release that migrated it")


def test_compacting_returns_free_pages(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM payload")
    before = path.stat()
    done = administer(str(path)).compact()
    assert done.after == path.stat().st_size < done.before == before.st_size
    assert path.stat().st_ino == before.st_ino
    info = administer(str(path)).info()
    assert (info.free_pages, info.log_size, info.journal_mode) == (0, 0, "wal")


def test_compacting_on_a_full_disk_changes_nothing(path: Path, monkeypatch: Any) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM payload")
    before = path.stat().st_size
    usage = shutil.disk_usage(path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=8192))
    with pytest.raises(MaintenanceRefused, match="compacting needs 2 MiB, and 0 MiB are free"):
        administer(str(path)).compact()
    assert path.stat().st_size == before


async def test_compacting_and_migrating_are_refused_while_a_process_runs(path: Path) -> None:
    store = make(path)
    await store.open()
    for action in (administer(str(path)).compact, administer(str(path)).migrate):
        with pytest.raises(MaintenanceRefused, match=f"1 process has {path} open: stop the service first"):
            action()
    await store.close()
    administer(str(path)).compact()


def test_a_process_that_starts_waits_for_the_end_of_compacting(path: Path, monkeypatch: Any) -> None:
    held = []

    def execute(connection: sqlite3.Connection, statement: str) -> None:
        with Path(f"{path}.lock").open("rb") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        held.append(statement)

    monkeypatch.setattr("queue_middleware.stores.sqlite.administration._execute", execute)
    administer(str(path)).compact()
    assert held == ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_lock_that_root_creates_belongs_to_the_user_of_the_database(path: Path) -> None:
    lock = Path(f"{path}.lock")
    lock.unlink()
    os.chown(path, 1234, 1235)
    administer(str(path)).compact()
    assert (lock.stat().st_uid, lock.stat().st_gid) == (1234, 1235)


async def test_migrating_an_earlier_schema(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite3"
    create_with_schema(path, 100)
    newest = migrations()[-1][0]
    assert administer(str(path)).migrate() == administration.Migration(100, newest)
    store = make(path)
    await store.open()
    assert administer(str(path)).migrate(while_running=True) == administration.Migration(newest, newest)
    await store.close()
    assert administer(str(path)).check() == []


def test_a_newer_schema_is_not_migrated(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(StoreError, match="upgrade the package"):
        administer(str(path)).migrate()


def test_what_is_not_a_queue_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.sqlite3"
    with pytest.raises(StoreError, match=f"there is no queue at {missing}"):
        administer(str(missing))
    assert list(tmp_path.iterdir()) == []

    other = tmp_path / "other"
    other.write_bytes(b"text" * 5000)
    for method in ("info", "check", "compact", "migrate"):
        with pytest.raises(StoreError, match=r"cannot be (read|opened): file is not a database"):
            getattr(administer(str(other)), method)()

    with closing(sqlite3.connect(tmp_path / "foreign")) as connection:
        connection.execute("CREATE TABLE t (x)")
    (tmp_path / "empty").touch()
    for name, message in (("foreign", "the database of another program"), ("empty", "is not a database of a queue")):
        for method in ("info", "check"):
            with pytest.raises(StoreError, match=message):
                getattr(administer(str(tmp_path / name)), method)()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_named(path: Path) -> None:
    path.chmod(0)
    with pytest.raises(StoreError, match="cannot be read"):
        administer(str(path)).info()


def test_a_folder_that_cannot_be_written_is_enough_for_reading(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For instance a backup on a disk that is mounted for reading only: SQLite wants to create files beside the database."""
    target = tmp_path / "elsewhere"
    target.mkdir()
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(path, folder / "queue.sqlite3")
    monkeypatch.setattr(os, "access", lambda *_: False)  # as root may write everywhere
    seen: list[list[str]] = []

    def look(*_: int) -> None:
        seen.append([one.name for one in folder.iterdir()])

    found = administer(str(folder / "queue.sqlite3"))
    assert found.info().requests == {"completed": 1, "queued": 1}
    assert found.check() == []
    assert found.back_up(target / "copy.sqlite3", look).size == path.stat().st_size
    assert set(map(tuple, seen)) == {("queue.sqlite3",)}
