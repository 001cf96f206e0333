"""Behavior of the store that is specific to SQLite. The behavior of every store is tested in tests/conformance."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from queue_middleware.errors import DiskFull, StoreError
from queue_middleware.jobs.models import JobState
from queue_middleware.jobs.outcomes import CANCELLED
from queue_middleware.jobs.store import Topic
from queue_middleware.settings import Settings
from queue_middleware.stores.common import jobs
from queue_middleware.stores.sqlite import SQLiteStore, connection, files
from queue_middleware.stores.sqlite import notifier as listeners
from queue_middleware.stores.sqlite import store as module
from queue_middleware.stores.sqlite.location import database_path
from queue_middleware.stores.sqlite.locks import WriteLock
from queue_middleware.stores.sqlite.sql import SQL, SQLiteQueries, bind, execute_rows
from queue_middleware.stores.sqlite.sql.schema import migrate, migrations
from tests.support.descriptors import open_files
from tests.support.factories import claim_deliveries, make_job, make_response
from tests.support.queue_client import eventually


def make(folder: Path, **options: Any) -> SQLiteStore:
    return SQLiteStore(Settings.load({"database": str(folder / "queue.sqlite3"), "min_free_disk": 0, **options}, {}))


@pytest.mark.parametrize(
    ("option", "path"),
    [
        ("/var/q.sqlite3", "/var/q.sqlite3"),
        ("q.sqlite3", str(Path.cwd() / "q.sqlite3")),
        ("sqlite:///q.sqlite3", str(Path.cwd() / "q.sqlite3")),
        ("sqlite:////var/q.sqlite3", "/var/q.sqlite3"),
    ],
)
def test_the_path_of_the_file(option: str, path: str) -> None:
    assert str(database_path(option)) == path


def test_another_kind_of_database_is_named() -> None:
    with pytest.raises(StoreError, match="mysql://… is not supported"):
        database_path("mysql://host/name")


def test_nothing_is_opened_at_construction(tmp_path: Path) -> None:
    make(tmp_path / "not" / "there")
    assert list(tmp_path.iterdir()) == []


async def test_only_the_owner_can_read_what_clients_sent(tmp_path: Path) -> None:
    store = make(tmp_path)
    await store.open()
    await store.submit(make_job())
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    await store.close()


async def test_closing_leaves_the_file_and_its_lock(tmp_path: Path) -> None:
    store = make(tmp_path)
    await store.open()
    await store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["queue.sqlite3", "queue.sqlite3.lock"]


async def test_a_file_that_is_no_database_is_refused_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "queue.sqlite3").write_bytes(b"a love letter" * 100)
    with pytest.raises(StoreError, match="cannot be opened: file is not a database; set the option database"):
        await make(tmp_path).open()
    assert (tmp_path / "queue.sqlite3").read_bytes() == b"a love letter" * 100


async def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened"):
        await make(tmp_path / "file" / "folder").open()


async def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    store = make(tmp_path)
    await store.open()
    await store.close()
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(StoreError, match="schema version 999"):
        await store.open()


def test_a_file_of_a_version_before_the_first_release_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "queue.sqlite3", isolation_level=None)
    connection.executescript("CREATE TABLE job (id INTEGER PRIMARY KEY); PRAGMA user_version = 16;")
    with pytest.raises(StoreError, match="schema version 16 is of a version before the first release"):
        migrate(connection)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("job",)]
    connection.close()


def test_migrations_have_increasing_numbers_and_can_be_repeated() -> None:
    numbers = [number for number, _ in migrations()]
    assert numbers == sorted(set(numbers))
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    migrate(connection)
    assert connection.execute("PRAGMA user_version").fetchone() == (numbers[-1],)
    connection.close()


@pytest.mark.parametrize("state", ["'running'", "'delayed'", "'completed'", "'failed'", "'cancelled'", "'unheard of'", "NULL"])
def test_the_schema_refuses_inconsistent_rows(state: str) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    insert = "INSERT INTO job (id, id_random, state, priority, client, max_attempts) VALUES (1, zeroblob(10), {}, 5, '', 1)"
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(insert.format(state))
    connection.execute(insert.format("'queued'"))
    connection.close()


def test_every_named_query_is_valid_and_used() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    code = "".join(path.read_text() for path in Path(module.__file__).parents[1].rglob("*.py"))
    for name, text in SQL.items():
        sql = re.sub(r"\{rows\}", "", text)
        names = set(re.findall(r":(\w+)", sql))
        values: Any = dict.fromkeys(names) if names else [None] * sql.count("?")
        connection.execute(f"EXPLAIN {sql}", values)
        assert f'"{name}"' in code, f"{name} is used nowhere"
    connection.close()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 63, 64, 65, 200, 300])
def test_rows_of_every_count(count: int) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    job = "INSERT INTO job (id, id_random, state, priority, client, max_attempts) VALUES (?, zeroblob(10), 'queued', 5, '', 1)"
    connection.executemany(job, [(n,) for n in range(count)])
    assert execute_rows(connection, "put_payloads", [(n, b"", b"", 0) for n in range(count)]) == count
    assert connection.execute("SELECT count(*) FROM payload").fetchone() == (count,)
    connection.close()


def test_lists_are_bound_as_json_and_nothing_else_is() -> None:
    assert bind("end_not_running", ("failed", 1, "type", "error", [1, 2])) == ["failed", 1, "type", "error", "[1,2]"]
    assert bind("snapshots", {"keys": [3], "positions": True}) == {"keys": "[3]", "positions": True}
    assert bind("release_deliveries", {"due": 1, "owner": "x", "tokens": None})["tokens"] is None
    given = {"until": 1}
    assert bind("postpone_suspects", given) is given


def test_every_list_of_a_block_is_recognized() -> None:
    bound = re.compile(r"json_each\((?:\?|:\w+)\)")
    assert all(len(bound.findall(text)) == text.count("json_each") for text in SQL.values())


def test_a_query_for_very_many_rows_is_several_statements() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    rest = ("queued", 0, "client", 0, 1, *[None] * 7, False, 0)
    execute_rows(connection, "insert_jobs", [(number << 15, b"%010d" % number, *rest) for number in range(300)])
    queries = SQLiteQueries(connection)
    found = queries.rows("job", [(number << 15, b"%010d" % number) for number in range(400)])
    assert [row[0] for row in found] == [number << 15 for number in range(300)]
    assert queries.rows("job", []) == []
    connection.close()


QUERY_PLANS = [
    ("claim_jobs", "job_queued"),
    ("claim_unpaused_jobs", "SCAN job USING COVERING INDEX job_queued"),
    ("promote_delayed", "job_delayed"),
    ("count_backlog_of_client", "backlog_client USING PRIMARY KEY"),
    ("count_backlog", "backlog USING PRIMARY KEY (state=? AND level=?)"),
    ("job", "job_queued (priority=? AND id>? AND id<?)"),
    ("overdue_jobs", "job_start_by"),
    ("running_claims", "job_running"),
    ("claim_deliveries", "delivery_due"),
    ("due_hosts", "receiver_healthy"),
    ("due_hosts", "receiver_others"),
    ("next_delivery", "receiver_healthy"),
    ("next_delivery", "receiver_others"),
    ("due_flows", "flow_turn"),
    ("due_flows", "delivery_due"),
    ("schedule_flows", "delivery_due"),
    ("schedule_hosts", "flow_turn"),
    ("probe_flows_of_hosts", "flow_turn"),
    ("give_up_deliveries", "flow_turn"),
    ("unused_flows", "flow_unused"),
    ("give_up_deliveries", "delivery_due"),
    ("dead_deliveries", "delivery_dead"),
    ("next_delayed_job", "job_delayed"),
    ("next_unpaused_delayed_job", "job_delayed"),
    ("promote_suspect", "SEARCH job USING INTEGER PRIMARY KEY"),
    ("promote_unpaused_suspect", "SEARCH job USING INTEGER PRIMARY KEY"),
    ("delay_paused_suspects", "SEARCH job USING INTEGER PRIMARY KEY"),
    ("count_jobs", "job_running"),
    ("idempotency_keys", "known USING PRIMARY KEY (scope=? AND key=?)"),
    ("count_jobs", "task_awaits"),
]


@pytest.mark.parametrize(("name", "index"), QUERY_PLANS)
def test_hot_queries_use_their_index(name: str, index: str) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    text = SQL[name].replace("{rows}", "")
    names = set(re.findall(r":(\w+)", text))
    values: Any = dict.fromkeys(names) if names else [None] * text.count("?")
    plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values))
    assert index in plan
    # The list of a JSON parameter and the rows of a subquery have no index; they are as short as the request. There are only as
    # many suspects as jobs that have just lost their process, at most 200 routes, and a pause is an act of an operator.
    assert not re.search(r"SCAN (?!chosen|json_each|suspect|route|pause|CONSTANT|\()\w+\b(?! USING)", plan), plan
    connection.close()


def test_the_deletion_of_a_job_finds_its_other_rows_by_an_index() -> None:
    """Otherwise the foreign keys of a table would make each deletion scan the table."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    references = [
        (table, column)
        for table in tables
        for _, _, parent, column, *_ in connection.execute(f"PRAGMA foreign_key_list({table})")
        if parent == "job"
    ]
    assert ("idempotency_key", "job_id") in references
    for table, column in references:
        (plan,) = connection.execute(f"EXPLAIN QUERY PLAN DELETE FROM {table} WHERE {column} = ?", (1,))
        assert plan[3].startswith("SEARCH"), f"{table}: {plan[3]}"
    connection.close()


def test_unstored_responses_are_found_without_a_scan_of_jobs() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    names = dict.fromkeys(re.findall(r":(\w+)", SQL["prunable_responses"]))
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {SQL['prunable_responses']}", names)]
    assert [step for step in plan if step.startswith("SCAN")] == ["SCAN unstored_response"]
    connection.close()


async def test_submissions_are_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    store = make(tmp_path, min_free_disk=2**53)
    await store.open()
    with pytest.raises(DiskFull, match="MiB of disk are free") as refusal:
        await store.submit(make_job())
    assert refusal.value.status == 503
    assert 30 <= refusal.value.retry_after <= 45
    assert (await store.counts()).jobs == {}
    await store.close()


async def test_a_network_file_system_is_refused_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "mount_table", lambda: "server:/x / nfs rw 0 0")
    with pytest.raises(StoreError, match="file locks do not hold"):
        await make(tmp_path).open()
    store = make(tmp_path, allow_network_filesystem=True)
    await store.open()
    await store.close()


@pytest.mark.parametrize(
    ("version", "warned"),
    [((3, 40, 1), True), ((3, 44, 5), True), ((3, 44, 6), False), ((3, 50, 7), False), ((3, 51, 2), True), ((3, 52, 0), False)],
)
def test_a_sqlite_with_the_reset_bug_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], warned: bool
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    noted = files.notes()
    assert bool(noted) == warned
    assert all("The processes of the queue exclude each other" in note and "you need not do anything" in note for note in noted)
    assert make(tmp_path).warnings() == []


async def test_the_files_are_readable_by_the_owner_only(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        (tmp_path / "new").mkdir()
        store = make(tmp_path / "new")
        await store.open()
        await store.submit(make_job())
        for end in ("", "-wal", "-shm"):
            assert stat.S_IMODE((tmp_path / "new" / f"queue.sqlite3{end}").stat().st_mode) == 0o600
        await store.close()
    finally:
        os.umask(umask)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o644, True), (0o602, True)])
async def test_a_file_that_others_can_read_causes_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, warned: bool
) -> None:
    """The file may have been restored from a backup or created by hand. Its permissions are not changed."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 52, 0))
    store = make(tmp_path)
    assert store.warnings() == []
    store.path.touch()
    store.path.chmod(0o600)
    await store.open()
    store.path.chmod(mode)
    warnings = store.warnings()
    assert bool(warnings) == warned
    assert all(f"run: chmod 600 {store.path} {store.path}-wal {store.path}-shm" in warning for warning in warnings)
    assert stat.S_IMODE(store.path.stat().st_mode) == mode
    await store.close()


async def test_a_reader_that_blocks_the_write_ahead_log_causes_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 52, 0))
    for place in (files, connection):
        monkeypatch.setattr(place, "LARGEST_WAL", 8 * 2**20)
    store = make(tmp_path)
    await store.open()
    reader = sqlite3.connect(store.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM job").fetchall()
    assert store.warnings() == []
    for _ in range(5):
        await store.submit(make_job(b"x" * 2 * 2**20))
    (warning,) = store.warnings()
    assert f"{store.path}-wal is larger than" in warning
    reader.close()
    for _ in range(3):  # the log is checkpointed, restarted and truncated
        await store.submit(make_job(b"x" * 2 * 2**20))
    assert store.warnings() == []
    await store.close()


@pytest.mark.slow
async def test_the_jobs_of_a_killed_process_are_rescued_at_once(tmp_path: Path) -> None:
    """The lease would last for a minute; the released liveness lock shows the death at once."""
    script = f"""
import asyncio, os, signal
from pathlib import Path
from tests.support.factories import make_job
from tests.unit.stores.sqlite.test_store import make
async def main():
    store = make(Path({str(tmp_path)!r}))
    await store.open()
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    victim = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], timeout=30, check=False)
    assert victim.returncode == -9
    store = make(tmp_path)
    await store.open()
    assert [rescue.state for rescue in await store.rescue()] == [JobState.DELAYED]
    (claim,) = await eventually(lambda: store.claim(1))  # after its backoff, by the clock of the process that died
    assert claim.attempt == 2
    assert await store.complete(claim, make_response())
    await store.close()


async def test_requests_are_not_kept_after_the_end(tmp_path: Path) -> None:
    """They may contain credentials."""
    store = make(tmp_path)
    await store.open()
    for finish in ("complete", "fail", "cancel"):
        receipt = await store.submit(make_job(b"secret" * 50_000), start=finish != "cancel")
        if finish == "complete" and receipt.claim:
            await store.complete(receipt.claim, make_response())
        elif receipt.claim:
            await store.fail(receipt.claim, CANCELLED)
        else:
            await store.cancel(receipt.request_id)
    connection = sqlite3.connect(store.path)
    assert connection.execute("SELECT body FROM payload").fetchall() == [(make_response().body,)]
    assert connection.execute("SELECT count(*) FROM request_chunk").fetchone() == (0,)
    connection.close()
    await store.close()


async def test_renewal_does_not_need_the_event_loop(tmp_path: Path) -> None:
    """A handler that blocks the event loop must not lose its job: leases are renewed in a thread with its own connection."""
    store = make(tmp_path)
    await store.open()
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim
    tokens = [receipt.claim.token]
    lease = "SELECT lease_until FROM job"
    connection = sqlite3.connect(store.path)
    (before,) = connection.execute(lease).fetchone()
    renewed = threading.Event()
    thread = threading.Thread(target=lambda: (store.renew(tokens), renewed.set()))
    thread.start()
    assert renewed.wait(10)  # the event loop is blocked meanwhile
    thread.join()
    assert connection.execute(lease).fetchone()[0] > before
    connection.close()
    await store.close()


async def test_an_unreadable_request_does_not_block_others(tmp_path: Path) -> None:
    store = make(tmp_path)
    await store.open()
    broken = await store.submit(make_job(webhook="https://example.com/"))
    good = await store.submit(make_job())
    connection = sqlite3.connect(store.path)
    connection.execute("UPDATE payload SET head = x'c1' WHERE job_id = (SELECT min(id) FROM job)")
    connection.commit()
    connection.close()
    assert [claim.request_id for claim in await store.claim(5)] == [good.request_id]
    job = await store.job(broken.request_id)
    assert job.state is JobState.FAILED
    assert len(await claim_deliveries(store, 1)) == 1
    await store.close()


async def test_the_worker_claims_again_after_an_unreadable_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object) -> None:
        raise msgspec.DecodeError("of another release")

    monkeypatch.setattr(listeners, "_POLL_INTERVAL", 3600)  # no other notification reports the work
    monkeypatch.setattr(jobs, "decode_request", unreadable)
    store = make(tmp_path)
    await store.open()
    await store.submit(make_job())
    await store.submit(make_job())
    told: list[Topic] = []
    store.subscribe(Topic.WORK, lambda: told.append(Topic.WORK))
    assert await store.claim(1) == []
    await eventually(lambda: told)
    await store.close()


async def test_a_failed_start_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "queue.sqlite3").write_bytes(b"a love letter" * 100)
    for _ in range(5):
        with pytest.raises(StoreError):
            await make(tmp_path).open()
    assert open_files(tmp_path) == []


async def test_a_forked_child_does_not_keep_the_locks_of_a_dead_parent(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, sys, time
from pathlib import Path
from tests.unit.stores.sqlite.test_store import make
from tests.support.factories import make_job
async def main():
    store = make(Path({str(tmp_path)!r}))
    await store.open()
    await store.submit(make_job(), start=True)
    if os.fork() == 0:
        store.detach_after_fork()
        print("child", os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = int((await asyncio.to_thread(parent.stdout.readline)).split()[1])
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    try:
        store = make(tmp_path)
        async with asyncio.timeout(10):
            await store.open()
            assert len(await store.rescue()) == 1
            await store.close()
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_commit_that_fails_does_not_leave_wrong_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a write-ahead log a full disk is detected at COMMIT, after the operations have updated the counters."""
    store = make(tmp_path)
    await store.open()
    await store.submit(make_job())
    execute = store._writer._execute

    def fail_at_commit(connection: sqlite3.Connection, group: Any) -> Any:
        execute(connection, group)
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(store._writer, "_execute", fail_at_commit)
        with pytest.raises(DiskFull):
            await store.claim(1)
    assert len(await store.claim(1)) == 1
    await store.close()


async def test_claims_that_cannot_be_released_are_left_to_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> list[int]:
        raise DiskFull("full", 1)

    with monkeypatch.context() as patched:
        patched.setattr(module.requeueing, "release_all", full)
        store = make(tmp_path)
        await store.open()
        await store.submit(make_job(), start=True)
        await store.close()
    assert open_files(tmp_path) == []
    heir = make(tmp_path)
    await heir.open()
    await heir.rescue()
    assert len(await eventually(lambda: heir.claim(1))) == 1
    await heir.close()


async def test_closing_does_not_wait_forever_for_the_write_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLOSE_TIMEOUT", 0.1)
    store = make(tmp_path)
    await store.open()
    await store.submit(make_job(), start=True)
    with WriteLock(tmp_path / "queue.sqlite3.lock"):
        await store.close()
    heir = make(tmp_path)
    await heir.open()
    await heir.rescue()
    assert len(await heir.claim(1)) == 1
    await heir.close()
