"""The words for how requests and attempts end."""

from __future__ import annotations

from enum import StrEnum

from .models import ErrorType, Failure, Job


class Outcome(StrEnum):
    """How a request ended: with which class of HTTP status (RFC 9110 section 15), or without an answer."""

    SUCCESS = "2xx"
    REDIRECTION = "3xx"
    CLIENT_ERROR = "4xx"
    SERVER_ERROR = "5xx"
    """Also of a handler that raised, where its framework answers 500."""
    OTHER = "other"
    """A status that is none of HTTP's."""
    FAILED = "failed"
    """Without an answer: the handler raised, a time limit passed, its process was lost too often."""
    CANCELLED = "cancelled"


class LossReason(StrEnum):
    """How a job lost the process that ran it."""

    PROCESS_DIED = "process_died"
    LEASE_EXPIRED = "lease_expired"
    EXIT = "exit"
    """Its handler ended the process by `KeyboardInterrupt` or `SystemExit`."""


CANCELLED = Failure(ErrorType.CLIENT_CANCELLED, "Request was cancelled")
LOST = Failure(ErrorType.RUNNER_DISCONNECTED, "worker lost: the process that ran this request died or hung")
RELEASED_TOO_OFTEN = Failure(
    ErrorType.RUNNER_DISCONNECTED, "the process that ran this request was ended again and again soon after its start"
)
OVERDUE = Failure(ErrorType.START_TIMEOUT, "the request did not start before its deadline")
WAIT_TIMED_OUT = Failure(ErrorType.WAIT_TIMEOUT, "nobody called back in time")
UNREADABLE = Failure(ErrorType.RUNNER_SERVER_ERROR, "the stored request cannot be read by this release")

LARGE_RESPONSE_BYTES = 10_000
"""Bytes of an answer that is large."""
UNSTORED_RESPONSE_TTL_MS = 3_600_000
"""Milliseconds after its end for which an answer can be read that is not to be stored (fal queue contract, section 5)."""
LARGE_UNSTORED_RESPONSE_TTL_MS = 360_000
"""The same for a large one."""


def run_time(job: Job) -> int | None:
    """Milliseconds from the start of its last attempt to its end; never below 0, whatever was done to the clock meanwhile."""
    if job.started_at is None or job.finished_at is None:
        return None
    return max(0, job.finished_at - job.started_at)


def outcome_of(status: int | None, error: ErrorType | None) -> Outcome:
    """The outcome class of an HTTP status; without a status, of the error that took the place of a response."""
    if status is None:
        return Outcome.CANCELLED if error is ErrorType.CLIENT_CANCELLED else Outcome.FAILED
    return Outcome(f"{status // 100}xx") if 200 <= status < 600 else Outcome.OTHER
