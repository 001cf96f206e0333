"""What is read from the row of a job, and how one row is asked for."""

from __future__ import annotations

import sqlite3
from typing import Any

from queue_middleware.models import ErrorType, Failure, Job, JobState, Progress
from queue_middleware.request_id import SEQUENCE_BITS, format_request_id

from .queries import SQL
from .taskrows import LISTED


def job_of(
    key: int,
    tail: bytes,
    state: str,
    attempt: int,
    fraction: float | None,
    stage: str | None,
    started_at: int | None,
    finished_at: int | None,
    status: int | None,
    error_type: str | None,
    error: str,
    client: str,
    task: int = LISTED,
    position: int | None = None,
) -> Job:
    """From the columns, in the order in which all queries name them. What is read beside a task's is a task's."""
    return Job(
        key=key,
        request_id=format_request_id(key, tail),
        state=JobState(state),
        attempt=attempt,
        position=position,
        progress=None if fraction is None else Progress(fraction, stage),
        created_at=key >> SEQUENCE_BITS,
        started_at=started_at,
        finished_at=finished_at,
        status=status,
        failure=Failure(ErrorType(error_type), error) if error_type else None,
        client=client,
        is_task=task == LISTED,
    )


def one(connection: sqlite3.Connection, name: str, parameters: Any = ()) -> tuple[Any, ...] | None:
    """The first row of a named query; no cursor stays open behind it."""
    rows = connection.execute(SQL[name], parameters).fetchall()
    return rows[0] if rows else None
