"""A queue that SQL has filled is one that the store could have filled."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from benchmarks.seeding import CLIENTS, seed, store_of

COUNT = CLIENTS + 50


async def test_the_seeded_jobs_are_claimed_in_their_order_with_their_bodies(tmp_path: Path) -> None:
    ids = await seed(tmp_path / "queue.sqlite3", COUNT)
    assert len(set(ids)) == COUNT
    store = store_of(tmp_path / "queue.sqlite3")
    await store.open()
    try:
        claims = await store.claim(3)
        assert [claim.request_id for claim in claims] == ids[:3]
        assert all(claim.request.body for claim in claims)
    finally:
        await store.close()


async def test_the_backlog_is_that_of_the_jobs(tmp_path: Path) -> None:
    await seed(tmp_path / "queue.sqlite3", COUNT)
    with closing(sqlite3.connect(tmp_path / "queue.sqlite3")) as connection:
        levels = connection.execute("SELECT level, sum(jobs) FROM backlog WHERE state = 'queued' GROUP BY level").fetchall()
        assert levels == [(level, COUNT) for level in (1, 2, 3, 4)]
        positions = connection.execute("SELECT position FROM queue_position ORDER BY id").fetchall()
        assert positions == [(place,) for place in range(COUNT)]
        clients = connection.execute("SELECT count(*), sum(jobs) FROM backlog_client").fetchone()
        assert clients == (CLIENTS, COUNT)
