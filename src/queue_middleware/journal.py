"""Events as log records of the logger `queue_middleware`: everyday ones at DEBUG, those that somebody should see above."""

from __future__ import annotations

import logging

from .events import (
    AttemptFailed,
    ClaimLost,
    DeliveryFailed,
    Event,
    Outage,
    Raised,
    Rescued,
    Started,
    Stopped,
    Stuck,
    Warned,
)

_log = logging.getLogger("queue_middleware")


class Journal:
    """An observer that logs. Texts name ids and paths, never bodies, headers or URLs of webhooks, which may hold secrets."""

    def on_event(self, event: Event) -> None:
        """Log one event."""
        level, message, error = _entry(event)
        if _log.isEnabledFor(level):
            _log.log(level, "%s", message, exc_info=error)


def _entry(event: Event) -> tuple[int, str, BaseException | None]:  # noqa: C901 - one table of spellings
    match event:
        case Started(database, concurrency):
            return logging.INFO, f"queue started: {database}, concurrency {concurrency}", None
        case Stopped(handed_back):
            return logging.INFO, f"queue stopped, {handed_back} running requests handed back", None
        case AttemptFailed(request_id, attempt, reason, delay):
            return logging.WARNING, f"{request_id}: attempt {attempt} failed ({reason}), again in {delay:.1f} s", None
        case ClaimLost(request_id, attempt):
            return logging.WARNING, f"{request_id}: attempt {attempt} does not count, its lease had run out", None
        case Rescued(request_id, state):
            return logging.WARNING, f"{request_id}: its worker was lost, now {state}", None
        case Raised(request_id, error):
            return logging.ERROR, f"{request_id}: the application raised {type(error).__name__}", error
        case Stuck(request_id, seconds):
            return logging.WARNING, f"{request_id}: still holds its slot after {seconds:.0f} s and cannot be stopped", None
        case DeliveryFailed(delivery, attempt, next_in):
            outlook = "given up" if next_in is None else f"again in {next_in:.0f} s"
            text = f"{delivery.request_id}: webhook attempt {delivery.attempt}: {attempt.error}; {outlook}"
            return logging.WARNING, text, None
        case Outage(where, error, pause):
            return logging.ERROR, f"{where}: {type(error).__name__}: {error}; goes on in {pause:.0f} s", error
        case Warned(message):
            return logging.WARNING, message, None
    return logging.DEBUG, str(event) if _log.isEnabledFor(logging.DEBUG) else "", None
