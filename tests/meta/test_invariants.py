"""The invariants that are looked at after every test of the conformance suite find what is wrong."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from queue_middleware.settings import Settings
from queue_middleware.stores.sqlite import SQLiteStore
from tests.support.factories import make_job, make_response
from tests.support.invariants import broken_invariants

BREAKING = [
    ("UPDATE backlog SET jobs = 9 WHERE level = 2", "backlog is not what counting gives"),
    ("DELETE FROM backlog_client", "backlog_client is not what counting gives"),
    ("INSERT INTO unfinished_tasks VALUES ('x', 1)", "unfinished_tasks is not what counting gives"),
    ("DELETE FROM job WHERE finished_at IS NOT NULL", "a row belongs to nothing"),
    ("DELETE FROM delivery", "an ended request has no webhook about its end"),
    ("UPDATE delivery SET job_id = (SELECT id FROM job WHERE state = 'queued')",
     "a webhook about the end of a request that has not ended"),
    ("DELETE FROM payload", "a request that has not ended has lost its content"),
    ("INSERT INTO request_chunk SELECT id, 1, x'' FROM job WHERE finished_at > 0",
     "an ended request has kept what only an attempt needs"),
    ("UPDATE flow SET next_at = due_at + 1 FROM delivery", "a due webhook has no receiver that is looked at in time"),
    ("DELETE FROM receiver", "a due webhook has no receiver that is looked at in time"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "name"), BREAKING, ids=[statement for statement, _ in BREAKING])
async def test_what_is_broken_is_found(tmp_path: Path, statement: str, name: str) -> None:
    path = tmp_path / "queue.sqlite3"
    store = SQLiteStore(Settings.load({"database": str(path), "min_free_disk": 0}, {}))
    await store.open()
    ended = (await store.submit(make_job(webhook="https://a.example/hook"), start=True)).claim
    assert ended
    await store.complete(ended, make_response())
    await store.submit(make_job())
    await store.close()
    assert broken_invariants(path) == {}
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount
    assert name in broken_invariants(path)
