"""Events as log records of the logger `queue_middleware`: everyday ones at DEBUG, those that somebody should see above."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from .events import (
    AttemptFailed,
    CircuitClosed,
    CircuitOpened,
    ClaimLost,
    DeliveryDead,
    DeliveryFailed,
    Event,
    KeysChanged,
    Outage,
    PollFailed,
    Raised,
    Redelivered,
    Rescued,
    Started,
    Stopped,
    Stuck,
    Warned,
)
from .models import Failure

_log = logging.getLogger("queue_middleware")


class Journal:
    """An observer that logs. Everyday events are logged where DEBUG is on when it is made.

    Texts name ids and paths, never bodies, headers or URLs of webhooks, which may hold secrets.
    """

    def __init__(self) -> None:
        self.kinds = None if _log.isEnabledFor(logging.DEBUG) else frozenset(_SPELLINGS)

    def on_event(self, event: Event) -> None:
        """Log one event."""
        level, spell = _SPELLINGS.get(type(event), _EVERYDAY)
        if _log.isEnabledFor(level):
            _log.log(level, "%s", spell(event), exc_info=getattr(event, "error", None))


def _undelivered(event: DeliveryFailed) -> str:
    outlook = "not again" if event.next_in is None else f"again in {event.next_in:.0f} s"
    delivery = event.delivery
    return f"{delivery.request_id}: webhook attempt {delivery.attempt}: {event.attempt.error}; {outlook}"


_Spelling = tuple[int, Callable[[Any], str]]

_PLAIN = ("request_id", "path", "attempt", "number", "seconds", "wait")
"""What the text of an everyday event names of it. What a provider calls its state is its own text, and is not among it."""


def _everyday(event: Any) -> str:
    values = {name: value for name in _PLAIN if isinstance(value := getattr(event, name, None), str | int | float)}
    if (delivery := getattr(event, "delivery", None)) is not None:
        values |= {
            "request_id": delivery.request_id,
            "delivery": delivery.id,
            "host": delivery.host,
            "attempt": delivery.attempt,
        }
    if (outcome := getattr(event, "outcome", None)) is not None:
        values["outcome"] = outcome.error_type if isinstance(outcome, Failure) else outcome.status
    return f"{type(event).__name__}: {', '.join(f'{name} {value}' for name, value in values.items())}"


_EVERYDAY: _Spelling = (logging.DEBUG, _everyday)
_SPELLINGS: Mapping[type, _Spelling] = {
    Started: (logging.INFO, lambda e: f"queue started: {e.database}, concurrency {e.concurrency}"),
    Stopped: (logging.INFO, lambda e: f"queue stopped, {e.handed_back} running requests handed back"),
    AttemptFailed: (
        logging.WARNING,
        lambda e: f"{e.request_id}: attempt {e.attempt} failed ({e.reason}), again in {e.delay:.1f} s",
    ),
    ClaimLost: (logging.WARNING, lambda e: f"{e.request_id}: attempt {e.attempt} does not count, its lease had run out"),
    Rescued: (logging.WARNING, lambda e: f"{e.request_id}: its worker was lost, now {e.state}"),
    Raised: (logging.ERROR, lambda e: f"{e.request_id}: the application raised {type(e.error).__name__}"),
    Stuck: (logging.WARNING, lambda e: f"{e.request_id}: still holds its slot after {e.seconds:.0f} s and cannot be stopped"),
    PollFailed: (
        logging.WARNING,
        lambda e: f"{e.request_id}: question {e.number} to the provider came to nothing ({e.reason}), again in {e.wait:.1f} s",
    ),
    DeliveryFailed: (logging.WARNING, _undelivered),
    DeliveryDead: (
        logging.WARNING,
        lambda e: f"{e.delivery.request_id}: webhook given up, delivery {e.delivery.id} is kept: {e.reason}",
    ),
    CircuitOpened: (
        logging.WARNING,
        lambda e: f"webhooks to {e.host} fail again and again; they wait, and one is tried in {e.pause:.0f} s",
    ),
    CircuitClosed: (logging.INFO, lambda e: f"webhooks to {e.host} arrive again"),
    Redelivered: (logging.INFO, lambda e: f"{e.count} webhooks are delivered again"),
    KeysChanged: (logging.INFO, lambda e: f"signing keys read anew, {e.kid} signs"),
    Outage: (logging.ERROR, lambda e: f"{e.where}: {type(e.error).__name__}: {e.error}; goes on in {e.pause:.0f} s"),
    Warned: (logging.WARNING, lambda e: e.message),
}
"""Level and text by kind; what is not here is everyday."""
