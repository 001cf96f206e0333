"""Events as log records of the logger `queue_middleware`: everyday ones at DEBUG, those that somebody should see above."""

from __future__ import annotations

import logging
import time
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
    Noted,
    Outage,
    PollFailed,
    Raised,
    Recovered,
    Redelivered,
    Rescued,
    Started,
    Stopped,
    Stopping,
    Stuck,
    Warned,
)
from .models import Failure, JobState

_log = logging.getLogger("queue_middleware")

_FIRST_PAUSE = 10.0
_LONGEST_PAUSE = 600.0
"""Seconds between two lines about failures that go on."""
_QUIET = 60.0
"""Seconds without a failure after which the next one is told in full again, where nothing says that it works."""


class Journal:
    """An observer that logs. Everyday events are logged where DEBUG is on when it is made.

    Texts name ids and paths, never bodies, headers or URLs of webhooks, which may hold secrets.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self.kinds = None if _log.isEnabledFor(logging.DEBUG) else frozenset((*_SPELLINGS, Outage, Recovered))
        self._clock = clock
        self._bursts: dict[str, _Burst] = {}

    def on_event(self, event: Event) -> None:
        """Log one event."""
        if isinstance(event, Outage):
            self._log_outage(event)
            return
        if isinstance(event, Recovered):
            self._log_end(event)
            return
        level, spell = _SPELLINGS.get(type(event), _EVERYDAY)
        if _log.isEnabledFor(level):
            _log.log(level, "%s", spell(event), exc_info=getattr(event, "error", None))

    # An outage is one thing to its reader, however often it is met: its beginning in full, how it goes on, and its end.

    def _log_outage(self, event: Outage) -> None:
        now = self._clock()
        burst = self._bursts.get(event.where)
        if burst is None or now - burst.last > _QUIET + event.pause:
            burst = self._bursts[event.where] = _Burst(now)
        text = f"{type(event.error).__name__}: {event.error}"
        if burst.is_new(event.error, now):
            _log.error("%s: %s; goes on in %g s", event.where, text, round(event.pause, 2), exc_info=event.error)
        elif (count := burst.to_be_told(now)) > 0:
            _log.error("%s: %d more failures in %s, the last: %s", event.where, count, _span(now - burst.first), text)

    def _log_end(self, event: Recovered) -> None:
        burst = self._bursts.pop(event.where, None)
        if burst is not None:
            failures = "a failure" if burst.total == 1 else f"{burst.total} failures"
            _log.warning("%s: works again, after %s in %s", event.where, failures, _span(self._clock() - burst.first))


class _Burst:
    """Failures of one source without a success between them."""

    def __init__(self, now: float) -> None:
        self.first = self.last = now
        self.total = 0
        self._untold = 0
        self._pause = _FIRST_PAUSE
        self._next = now + self._pause
        self._kinds: set[type] = set()

    def is_new(self, error: BaseException, now: float) -> bool:
        """Count it; whether it is the first of its kind."""
        self.last = now
        self.total += 1
        if type(error) in self._kinds:
            self._untold += 1
            return False
        self._kinds.add(type(error))
        return True

    def to_be_told(self, now: float) -> int:
        """How many have not been told of, when it is time to; else 0. It is time less and less often."""
        if now < self._next:
            return 0
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self._next = now + self._pause
        untold, self._untold = self._untold, 0
        return untold


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _undelivered(event: DeliveryFailed) -> str:
    outlook = "not again" if event.next_in is None else f"again in {event.next_in:.0f} s"
    delivery = event.delivery
    return f"{delivery.request_id}: webhook attempt {delivery.attempt}: {event.attempt.error}; {outlook}"


def _rescued(event: Rescued) -> str:
    outlook = "it is run again soon" if event.state is JobState.DELAYED else f"now {event.state}"
    return f"{event.request_id}: the process that ran it was lost; {outlook}"


def _started(event: Started) -> str:
    of = "" if event.application is None else f" of the application {event.application!r}"
    return f"queue started: {event.database}{of}, concurrency {event.concurrency}"


def _stopping(event: Stopping) -> str:
    things = [
        f"{count} {noun}{'' if count == 1 else 's'}"
        for count, noun in ((event.requests, "running request"), (event.webhooks, "webhook"))
        if count
    ]
    hurry = "; Ctrl-C once more ends it at once" if event.can_hurry else ""
    return (
        f"queue stopping: waiting at most {event.seconds:g} s for {' and '.join(things)}; what has not ended by then goes on "
        f"after the restart{hurry}"
    )


def _whose(event: CircuitOpened | CircuitClosed) -> str:
    return "" if event.submitter is None else " of one submitter"


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
    Started: (logging.INFO, _started),
    Stopping: (logging.WARNING, _stopping),
    Stopped: (logging.INFO, lambda e: f"queue stopped, {e.handed_back} running requests handed back"),
    AttemptFailed: (
        logging.WARNING,
        lambda e: f"{e.request_id}: attempt {e.attempt} failed ({e.reason}), again in {e.delay:.1f} s",
    ),
    ClaimLost: (logging.WARNING, lambda e: f"{e.request_id}: attempt {e.attempt} does not count, its lease had run out"),
    Rescued: (logging.WARNING, _rescued),
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
        lambda e: f"webhooks{_whose(e)} to {e.host} fail again and again; they wait, and one is tried in {e.pause:.0f} s",
    ),
    CircuitClosed: (logging.INFO, lambda e: f"webhooks{_whose(e)} to {e.host} arrive again"),
    Redelivered: (logging.INFO, lambda e: f"{e.count} webhooks are delivered again"),
    KeysChanged: (logging.INFO, lambda e: f"signing keys read anew, {e.kid} signs"),
    # With a name in front: where logging is not set up, Python prints warnings without that of their logger.
    Warned: (logging.WARNING, lambda e: f"queue_middleware: {e.message}"),
    Noted: (logging.INFO, lambda e: f"queue_middleware: {e.message}"),
}
"""Level and text by kind; what is not here is everyday."""
