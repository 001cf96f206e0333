"""What follows from an attempt to deliver a webhook: delivered, another attempt later, or none. Pure."""

from __future__ import annotations

from enum import StrEnum
from urllib.parse import urljoin, urlsplit

from queue_middleware.backoff import retry_after, scheduled
from queue_middleware.errors import OutboundError, OutboundRefused, OutboundTimeout, OutboundUnreached
from queue_middleware.jobs.models import Headers
from queue_middleware.jobs.struct import Struct

from .circuit import AttemptOutcome, attempt_outcome

MAX_REFUSALS = 3
"""Attempts that the outbound guard may refuse. A name may resolve to a private address for a moment, but not for hours."""

_MAX_LOCATION = 300


class FailureCause(StrEnum):
    """Why a delivery attempt has failed, for metrics and logs."""

    RESPONSE = "response"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    REFUSED = "refused"
    """By the outbound guard."""
    NOT_SENT = "not_sent"
    """For another reason, for instance because the result is no longer stored."""


class AttemptDecision(Struct, frozen=True):
    """How an attempt ended, and when the next one is."""

    error: str | None = None
    """For the operator; None if the webhook was delivered."""
    retry_in: float | None = None
    """Seconds until the next attempt; None if there is none."""
    outcome: AttemptOutcome | None = None
    """What the attempt shows about the receiver; None if it shows nothing."""
    cause: FailureCause | None = None
    """Why it has failed; None if it has not."""


def decide_response(
    status: int, headers: Headers, seconds: float, *, url: str, tries: int, schedule: tuple[float, ...], now: float
) -> AttemptDecision:
    """After a response to attempt number `tries`, which took so many seconds. `now` is in Unix seconds."""
    error = error_for_status(status, headers, url)
    return AttemptDecision(
        error=error,
        retry_in=retry_delay(status, headers, tries, schedule, now),
        outcome=attempt_outcome(status, seconds),
        cause=None if error is None else FailureCause.RESPONSE,
    )


def decide_error(error: Exception, tries: int, schedule: tuple[float, ...]) -> AttemptDecision:
    """After attempt number `tries` raised this in place of a response. Not for `OutboundBusy`: then no attempt was made."""
    wait = scheduled(schedule, tries)
    match error:
        case OutboundRefused():  # shows nothing about the receiver
            is_last = error.is_final or tries >= MAX_REFUSALS
            return AttemptDecision(error.detail, None if is_last else wait, cause=FailureCause.REFUSED)
        case OutboundUnreached():
            return AttemptDecision(error.detail, wait, AttemptOutcome.UNREACHED, FailureCause.CONNECTION)
        case OutboundError():
            cause = FailureCause.TIMEOUT if isinstance(error, OutboundTimeout) else FailureCause.CONNECTION
            return AttemptDecision(error.detail, wait, AttemptOutcome.FAILED, cause)
        case _:
            return AttemptDecision(f"not sent: {type(error).__name__}", wait, cause=FailureCause.NOT_SENT)


def error_for_status(status: int, headers: Headers = (), url: str = "") -> str | None:
    """The error that is recorded for a response from `url`; None for 2xx."""
    if 200 <= status < 300:
        return None
    if not 300 <= status < 400:
        return f"response status {status}"
    location = _redirect_location(headers, url)
    return f"response status {status}; redirects are not followed" + (f" (this one is to {location})" if location else "")


def _redirect_location(headers: Headers, url: str) -> str:
    """Scheme, host and path of a redirect's target, without the query, which may be secret. Empty if it cannot be parsed."""
    location = next((value for name, value in headers if name == b"location"), b"").decode("latin-1")
    try:
        parts = urlsplit(urljoin(url, location)) if location else None
    except ValueError:
        return ""
    if parts is None or not parts.hostname:
        return ""
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return "".join(character if character.isprintable() else "?" for character in shown)[:_MAX_LOCATION]


def retry_delay(status: int, headers: Headers, tries: int, schedule: tuple[float, ...], now: float) -> float | None:
    """Seconds from a response to attempt number `tries` to the next attempt; None if there is none.

    A redirect and 410 are final. `Retry-After` of 429 and 503 can only make the wait longer. `now` is in Unix seconds.
    """
    if 200 <= status < 400 or status == 410:
        return None
    wait = scheduled(schedule, tries)
    if wait is None or status not in (429, 503):
        return wait
    return max(wait, retry_after(headers, now))
