"""Requests as the command prints them."""

from __future__ import annotations

from queue_middleware.jobs.job_list import ListedJob
from queue_middleware.jobs.models import ErrorType, Job, JobState
from queue_middleware.jobs.outcomes import run_time
from queue_middleware.jobs.struct import Struct

from .output import Terminal, duration, timestamp

_SERVER_ERROR = 500


class RequestRow(Struct, frozen=True):
    """One request of a list."""

    id: str
    state: JobState
    method: str
    """Empty if the route is `other`."""
    route: str
    client: str
    """`id:` and the identity of the client, otherwise its network address."""
    submitted_at: str
    started_at: str | None
    """When the last attempt started."""
    ended_at: str | None
    run_seconds: float | None
    """Length of the last attempt; None before the end."""
    attempts: int
    status: int | None
    """HTTP status of the response."""
    error: ErrorType | None
    """Why there is no response."""


COLUMNS = ("ID", "STATE", "ROUTE", "CLIENT", "SUBMITTED", "ENDED", ">RAN", ">ATTEMPTS", "RESULT")


def make_row(listed: ListedJob) -> RequestRow:
    """The row of a request."""
    job, ran = listed.job, run_time(listed.job)
    return RequestRow(
        id=job.request_id,
        state=job.state,
        method=listed.method,
        route=listed.route,
        client=job.client,
        submitted_at=timestamp(job.created_at),
        started_at=time_or_none(job.started_at),
        ended_at=time_or_none(job.finished_at),
        run_seconds=None if ran is None else ran / 1000,
        attempts=job.attempt,
        status=job.status,
        error=None if job.failure is None else job.failure.error_type,
    )


def cells(listed: ListedJob, terminal: Terminal) -> tuple[str, ...]:
    """The cells of a request in a table with `COLUMNS`."""
    job, ran = listed.job, run_time(listed.job)
    return (
        job.request_id,
        job.state,
        f"{listed.method} {listed.route}".strip(),
        job.identity or job.client,
        terminal.since(job.created_at),
        terminal.since(job.finished_at),
        "-" if ran is None else duration(ran / 1000),
        str(job.attempt),
        result_of(job),
    )


def result_of(job: Job) -> str:
    """How the request ended: the status of its response, or the reason why there is none; `-` before the end."""
    if job.failure is not None:
        return job.failure.error_type
    return "-" if job.status is None else str(job.status)


def is_failed(job: Job) -> bool:
    """Whether an operator counts the request as failed: without a response, or with a status from 500."""
    return job.state is JobState.FAILED or (job.status or 0) >= _SERVER_ERROR


def time_or_none(at: int | None) -> str | None:
    """A time in milliseconds for JSON."""
    return None if at is None else timestamp(at)
