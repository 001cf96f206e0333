"""How requests and attempts end: outcome classes, fixed failures, and how long responses are kept."""

from __future__ import annotations

from enum import StrEnum

from .models import ErrorType, Failure, Job


class Outcome(StrEnum):
    """How a request ended: with which class of HTTP status (RFC 9110 section 15), or without a response."""

    SUCCESS = "2xx"
    REDIRECTION = "3xx"
    CLIENT_ERROR = "4xx"
    SERVER_ERROR = "5xx"
    """Includes handlers that raised, if their framework responds with 500."""
    OTHER = "other"
    """A status outside the range of HTTP."""
    FAILED = "failed"
    """Without a response: the handler raised, a time limit passed, or its process was lost too often."""
    CANCELLED = "cancelled"


class LossReason(StrEnum):
    """How a job lost the process that ran it."""

    PROCESS_DIED = "process_died"
    LEASE_EXPIRED = "lease_expired"
    EXIT = "exit"
    """The handler ended the process by `KeyboardInterrupt` or `SystemExit`."""


CANCELLED = Failure(ErrorType.CLIENT_CANCELLED, "Request was cancelled")
LOST = Failure(ErrorType.RUNNER_DISCONNECTED, "worker lost: the process that ran this request died or hung")
RELEASED_TOO_OFTEN = Failure(
    ErrorType.RUNNER_DISCONNECTED, "the process that ran this request was ended again and again soon after its start"
)
OVERDUE = Failure(ErrorType.START_TIMEOUT, "the request did not start before its deadline")
WAIT_TIMED_OUT = Failure(ErrorType.WAIT_TIMEOUT, "the external service sent no result in time")
UNREADABLE = Failure(ErrorType.RUNNER_SERVER_ERROR, "the stored request cannot be read by this release")

LARGE_RESPONSE_BYTES = 10_000
"""Bytes from which a response counts as large."""
UNSTORED_RESPONSE_TTL_MS = 3_600_000
"""Milliseconds for which a response that is not to be stored can be fetched (docs/reference/protocols/fal.md, section 5)."""
LARGE_UNSTORED_RESPONSE_TTL_MS = 360_000
"""The same for a large response, in milliseconds."""


def run_time(job: Job) -> int | None:
    """Milliseconds from the start of the last attempt to its end; at least 0, even if the clock was set back meanwhile."""
    if job.started_at is None or job.finished_at is None:
        return None
    return max(0, job.finished_at - job.started_at)


def outcome_of(status: int | None, error: ErrorType | None) -> Outcome:
    """The outcome class of an HTTP status; without a status, of the error that took the place of a response."""
    if status is None:
        return Outcome.CANCELLED if error is ErrorType.CLIENT_CANCELLED else Outcome.FAILED
    return Outcome(f"{status // 100}xx") if 200 <= status < 600 else Outcome.OTHER
