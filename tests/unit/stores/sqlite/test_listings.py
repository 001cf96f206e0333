"""Lists of many rows: skipped rows cost little, and other reads do not wait."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from queue_middleware.settings import Settings
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.stores.sqlite.sql import SQL
from queue_middleware.stores.sqlite.sql.schema import migrate
from queue_middleware.webhooks.models import DeliveryFilter
from tests.support.factories import a_job


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        yield connection


@pytest.mark.parametrize("name", ["task_page", "count_tasks", "task_page_of_status", "count_tasks_of_status"])
def test_tasks_are_found_by_their_client(connection: sqlite3.Connection, name: str) -> None:
    parameters = dict.fromkeys(re.findall(r":(\w+)", SQL[name]), 1)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", parameters)]
    assert any("USING COVERING INDEX task_client (client=?)" in step for step in plan), plan
    assert not [step for step in plan if re.match(r"SCAN (job|task)\b", step)], plan


def test_tasks_before_a_page_are_not_read(connection: sqlite3.Connection) -> None:
    """Counted in steps of SQLite's virtual machine: a skipped row takes about three, a joined row about fifty."""
    connection.execute("PRAGMA foreign_keys = OFF")
    for key in range(2000):
        connection.execute(
            "INSERT INTO job (id, id_random, state, priority, client, max_attempts, task) "
            "VALUES (?, zeroblob(10), 'queued', 5, 'c', 1, 2)",
            (key,),
        )
        connection.execute(
            "INSERT INTO task (job_id, spec, salt, callback, client, awaits) VALUES (?, x'', x'', ?, 'c', 'nothing')",
            (key, b"%d" % key),
        )

    def steps(name: str, **parameters: object) -> int:
        count = 0

        def step() -> None:
            nonlocal count
            count += 1

        connection.set_progress_handler(step, 1)
        connection.execute(SQL[name], parameters).fetchall()
        connection.set_progress_handler(None, 0)
        return count

    first = steps("task_page", client="c", limit=20, offset=0)
    assert steps("task_page", client="c", limit=20, offset=1900) - first < 1900 * 10
    assert steps("count_tasks", client="c") < 2000 * 10


async def test_a_status_does_not_wait_for_a_listing(tmp_path: Path) -> None:
    store = SQLiteStore(Settings.load({"database": str(tmp_path / "queue.sqlite3"), "min_free_disk": 0}, {}))
    await store.open()
    try:
        receipt = await store.submit(a_job())
        gate = threading.Event()
        blocking = asyncio.ensure_future(store._read_many(lambda connection: gate.wait(20)))
        lists = [
            asyncio.ensure_future(verb)
            for verb in (
                store.counts(),
                store.tasks.page("c", None, limit=1, offset=0),
                store.webhooks.records(DeliveryFilter()),
                store.webhooks.receivers([]),
            )
        ]
        assert (await asyncio.wait_for(store.job(receipt.request_id), 10)).request_id == receipt.request_id
        assert not any(verb.done() for verb in (blocking, *lists))
        gate.set()
        await asyncio.gather(blocking, *lists)
    finally:
        gate.set()
        await store.close()
