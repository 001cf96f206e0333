"""Builds a `Job` from the columns of its row."""

from __future__ import annotations

from queue_middleware.jobs.ids import SEQUENCE_BITS, format_request_id
from queue_middleware.jobs.models import ErrorType, Failure, Job, JobState, Progress

from .task_rows import LISTED


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
    """A job from its columns, in the order of every query for jobs.

    Queries for tasks do not select the column `task`, because every job that they find is a task.
    """
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
        is_listed_task=task == LISTED,
    )
