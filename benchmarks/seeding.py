"""Queues of any length, written by SQL in one transaction: through the store, a million jobs would take half an hour.

One job is submitted through the store, and its rows are copied. The triggers of the schema keep the backlog.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from queue_middleware import Settings
from queue_middleware.jobs.ids import SEQUENCE_BITS, format_request_id
from queue_middleware.jobs.models import NewJob, RetryPolicy, StoredRequest
from queue_middleware.stores.sqlite import SQLiteStore

from .apps import BODY

CLIENTS = 250
_COPY_JOBS = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :count)
INSERT INTO job (id, id_random, client, {columns})
SELECT id - ((:count + 1 - n) << :bits), randomblob(10), '192.0.2.' || (n % :clients), {columns} FROM job, number
"""
"""A millisecond apart, and all of them before the job that they are copies of."""
_COPY_PAYLOADS = """
INSERT INTO payload (job_id, head, body, chunks)
SELECT job.id, head, body, chunks FROM job, payload WHERE job.id <> payload.job_id ORDER BY job.id
"""


_ADD_ROUTES = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
INSERT INTO route (id, method, template) SELECT n, 'POST', '/route-' || n FROM number
"""


def store_of(database: Path, **more: Any) -> SQLiteStore:
    """A store with limits that no benchmark reaches; each is a process of its own, as far as the database knows."""
    options = {"database": str(database), "max_queued": 10**9, "max_queued_per_client": 10**9, "min_free_disk": 0, **more}
    return SQLiteStore(Settings.load(options, {}))


def new_job(client: str = "192.0.2.1") -> NewJob:
    """A job as a submission makes it."""
    headers = ((b"host", b"127.0.0.1"), (b"content-type", b"application/json"))
    request = StoredRequest("POST", "", b"/x", b"", headers, (client, 1), ("127.0.0.1", 80), "http", "1.1", BODY)
    return NewJob(request, client, RetryPolicy(3))


async def seed(database: Path, count: int) -> list[str]:
    """Create a database in which so many jobs are queued; their public ids, the first in the queue first."""
    store = store_of(database)
    await store.open()
    try:
        await store.submit(new_job())
    finally:
        await store.close()
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        # The file is thrown away if this fails, so nothing has to be journaled or fsynced.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        copy_jobs(connection, count - 1)
        connection.execute("PRAGMA journal_mode = WAL")
        return [
            format_request_id(key, random) for key, random in connection.execute("SELECT id, id_random FROM job ORDER BY id")
        ]


def add_routes(connection: sqlite3.Connection, count: int) -> None:
    """Add the routes `/route-1`, `/route-2`, …, with these ids. The jobs keep theirs."""
    connection.execute(_ADD_ROUTES, (count,))


def copy_jobs(connection: sqlite3.Connection, count: int) -> None:
    """Add copies of the only job in front of it."""
    names = [name for _, name, *_ in connection.execute("PRAGMA table_info (job)")]
    columns = ", ".join(name for name in names if name not in ("id", "id_random", "client"))
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_COPY_JOBS.format(columns=columns), {"count": count, "bits": SEQUENCE_BITS, "clients": CLIENTS})
    connection.execute(_COPY_PAYLOADS)
    connection.execute("COMMIT")
