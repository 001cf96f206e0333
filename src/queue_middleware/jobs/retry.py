"""Decides whether an attempt is repeated, and after which wait."""

from __future__ import annotations

from dataclasses import dataclass

from .models import ErrorType, Failure, RetryCause, RetryPolicy, StoredResponse
from .task_spec import Backoff

RETRY_CAUSE_BY_STATUS: dict[int, RetryCause] = {503: RetryCause.SERVER_ERROR, 504: RetryCause.SERVER_ERROR}
RETRY_CAUSE_BY_ERROR: dict[ErrorType, RetryCause] = {
    ErrorType.RUNNER_INCOMPLETE_RESPONSE: RetryCause.SERVER_ERROR,
    ErrorType.RUNNER_DISCONNECTED: RetryCause.CONNECTION_ERROR,
    ErrorType.REQUEST_TIMEOUT: RetryCause.TIMEOUT,
    ErrorType.RUNNER_CONNECTION_ERROR: RetryCause.CONNECTION_ERROR,
}
TASK_RETRY_CAUSE_BY_ERROR: dict[ErrorType, RetryCause] = {
    **RETRY_CAUSE_BY_ERROR,
    ErrorType.RUNNER_SERVER_ERROR: RetryCause.SERVER_ERROR,
}
"""A task's attempt that ended without an answer, or with a 5xx, is repeated (AsyncQueue contract, "Tasks")."""

MAX_FREE_RELEASES = 2
"""How often in a row a process that ends in order may hand a request back; from then on each is charged as an attempt."""
LONG_ATTEMPT_MS = 600_000
"""Milliseconds. An attempt that had run for so long when it was handed back is not counted, and the next is the first in a row:
a deployment now and then ends no request, however long it takes."""

_LONGEST_RETRY_AFTER = 3600


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """The verdict that an attempt is to be repeated. `after` is what the application asked for, in seconds."""

    cause: RetryCause
    after: float | None = None


def decide_retry(outcome: StoredResponse | Failure, attempt: int, policy: RetryPolicy) -> RetryDecision | None:
    """Whether an attempt that ended like this is repeated (fal queue contract, section 8); None means it stands."""
    again = _reason(outcome) if policy.backoff is None else _task_reason(outcome)
    return again if again and attempts_left(attempt, again.cause, policy) else None


def attempts_left(attempt: int, cause: RetryCause, policy: RetryPolicy) -> bool:
    """Whether there is another attempt after attempt number `attempt`, for this cause."""
    return attempt < attempts_allowed(cause, policy)


def attempts_allowed(cause: RetryCause, policy: RetryPolicy) -> int:
    """How many there are in all, as far as this cause is concerned."""
    return 1 + policy.extra[cause] if cause in policy.extra else policy.max_attempts


def task_backoff(kind: Backoff, attempt: int) -> float:
    """Seconds after a task's attempt number `attempt`: 1, 2, 4, 8, 16, … or 1, 2, 3, 4, 5, … (AsyncQueue contract, "Tasks")."""
    return float(attempt) if kind is Backoff.LINEAR else 2.0 ** (attempt - 1)


def _reason(outcome: StoredResponse | Failure) -> RetryDecision | None:
    if isinstance(outcome, Failure):
        cause = RETRY_CAUSE_BY_ERROR.get(outcome.error_type)
        return RetryDecision(cause) if cause else None
    if outcome.status < 400:  # the common case pays for nothing more than this unless the application overrides it
        wanted = _header(outcome, b"x-fal-needs-retry")
        return RetryDecision(RetryCause.SERVER_ERROR, _retry_after(outcome)) if wanted == b"1" else None
    return _reason_of_error(outcome)


def _reason_of_error(response: StoredResponse) -> RetryDecision | None:
    wanted = _header(response, b"x-fal-needs-retry")
    after = _retry_after(response)
    cause = RETRY_CAUSE_BY_STATUS.get(response.status)
    if wanted == b"0":
        return None
    if wanted == b"1" or (response.status == 429 and after is not None):
        return RetryDecision(cause or RetryCause.SERVER_ERROR, after)
    return RetryDecision(cause, after) if cause else None


def _task_reason(outcome: StoredResponse | Failure) -> RetryDecision | None:
    if isinstance(outcome, Failure):
        cause = TASK_RETRY_CAUSE_BY_ERROR.get(outcome.error_type)
        return RetryDecision(cause) if cause else None
    return RetryDecision(RetryCause.SERVER_ERROR, _retry_after(outcome)) if outcome.status >= 500 else None


def _header(response: StoredResponse, name: bytes) -> bytes | None:
    for key, value in response.headers:
        if key == name:
            return value.strip()
    return None


def _retry_after(response: StoredResponse) -> float | None:
    """Seconds only; the date form (RFC 9110 §10.2.3) is treated as absent, because nobody sends it to himself."""
    value = _header(response, b"retry-after")
    if not value or not value.isdigit():
        return None
    return float(min(int(value[:9]), _LONGEST_RETRY_AFTER))
