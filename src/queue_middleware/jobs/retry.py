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
"""An attempt of a task is repeated if it ended without a response or with a 5xx (docs/reference/protocols/asyncqueue.md)."""

MAX_FREE_RELEASES = 2
"""How often in a row a process that shuts down may release a request without charging an attempt."""
LONG_ATTEMPT_MS = 600_000
"""Milliseconds. An attempt that had run this long when it was released is not charged, and resets the count of releases:
occasional deployments never use up the attempts of a request, however long it takes."""

_MAX_RETRY_AFTER = 3600


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """The decision to repeat an attempt. `after` is the wait that the application requested, in seconds."""

    cause: RetryCause
    after: float | None = None


def decide_retry(outcome: StoredResponse | Failure, attempt: int, policy: RetryPolicy) -> RetryDecision | None:
    """Whether an attempt with this outcome is repeated (docs/reference/protocols/fal.md, section 8); None if it is final."""
    decision = _fal_decision(outcome) if policy.backoff is None else _task_decision(outcome)
    return decision if decision and attempts_left(attempt, decision.cause, policy) else None


def attempts_left(attempt: int, cause: RetryCause, policy: RetryPolicy) -> bool:
    """Whether another attempt is allowed after attempt number `attempt`, for this cause."""
    return attempt < attempts_allowed(cause, policy)


def attempts_allowed(cause: RetryCause, policy: RetryPolicy) -> int:
    """The number of attempts that this cause allows."""
    return 1 + policy.extra[cause] if cause in policy.extra else policy.max_attempts


def task_backoff(kind: Backoff, attempt: int) -> float:
    """Seconds after attempt number `attempt` of a task: 1, 2, 4, 8, 16 and so on, or 1, 2, 3, 4, 5 and so on."""
    return float(attempt) if kind is Backoff.LINEAR else 2.0 ** (attempt - 1)


def _fal_decision(outcome: StoredResponse | Failure) -> RetryDecision | None:
    if isinstance(outcome, Failure):
        cause = RETRY_CAUSE_BY_ERROR.get(outcome.error_type)
        return RetryDecision(cause) if cause else None
    if outcome.status < 400:  # the common case costs no more than this
        wanted = _header(outcome, b"x-fal-needs-retry")
        return RetryDecision(RetryCause.SERVER_ERROR, _retry_after(outcome)) if wanted == b"1" else None
    return _fal_decision_on_error(outcome)


def _fal_decision_on_error(response: StoredResponse) -> RetryDecision | None:
    wanted = _header(response, b"x-fal-needs-retry")
    after = _retry_after(response)
    cause = RETRY_CAUSE_BY_STATUS.get(response.status)
    if wanted == b"0":
        return None
    if wanted == b"1" or (response.status == 429 and after is not None):
        return RetryDecision(cause or RetryCause.SERVER_ERROR, after)
    return RetryDecision(cause, after) if cause else None


def _task_decision(outcome: StoredResponse | Failure) -> RetryDecision | None:
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
    """Seconds only; the date form (RFC 9110 §10.2.3) is ignored, because applications do not send it to themselves."""
    value = _header(response, b"retry-after")
    if not value or not value.isdigit():
        return None
    return float(min(int(value[:9]), _MAX_RETRY_AFTER))
