"""Logs events with the logger `queue_middleware`: routine events at DEBUG, those that need attention at higher levels."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from queue_middleware.events import (
    ApplicationError,
    AttemptFailed,
    CircuitClosed,
    CircuitOpened,
    ClaimLost,
    DeliveryDead,
    DeliveryFailed,
    Event,
    KeysChanged,
    Operated,
    OperatorNotice,
    OperatorWarning,
    PollFailed,
    Recovered,
    Redelivered,
    Rescued,
    ServiceError,
    SlotStuck,
    Started,
    Stopped,
    Stopping,
)
from queue_middleware.jobs.models import JobState

from .bursts import Bursts
from .record_fields import fields_of

_log = logging.getLogger("queue_middleware")


class LoggingObserver:
    """An observer that logs. Routine events are logged only if DEBUG is enabled when the observer is created.

    Texts contain ids and paths, never bodies, headers or URLs of webhooks, which may contain secrets.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self.kinds = None if _log.isEnabledFor(logging.DEBUG) else frozenset((*_FORMATS, ServiceError, Recovered))
        self._clock = clock
        self._bursts = Bursts(clock)

    def on_event(self, event: Event) -> None:
        """Log one event."""
        if isinstance(event, ServiceError):
            self._log_error(event)
            return
        if isinstance(event, Recovered):
            self._log_recovery(event)
            return
        level, text = _FORMATS.get(type(event), _ROUTINE)
        if _log.isEnabledFor(level):
            error = event.error if isinstance(event, ApplicationError) else None
            _log.log(level, "%s", text(event), exc_info=error, extra=fields_of(event))

    # However many errors an outage causes, the log shows its start in full, then counts, then its end.

    def _log_error(self, event: ServiceError) -> None:
        burst = self._bursts.of(event)
        text = f"{type(event.error).__name__}: {event.error}"
        if burst.is_new(event.error):
            retry = f"; continues in {round(event.retry_in, 2):g} s" if event.retry_in else ""
            _log.error("%s: %s%s", event.where, text, retry, exc_info=event.error, extra=fields_of(event))
        elif (count := burst.take_unlogged()) > 0:
            more = "1 more failure" if count == 1 else f"{count} more failures"
            since = _span(burst.last - burst.first)
            _log.error("%s: %s in %s, the last: %s", event.where, more, since, text, extra=fields_of(event))

    def _log_recovery(self, event: Recovered) -> None:
        burst = self._bursts.end(event)
        if burst is not None:
            failures = "a failure" if burst.total == 1 else f"{burst.total} failures"
            since = _span(self._clock() - burst.first)
            _log.warning("%s: works again, after %s in %s", event.where, failures, since, extra=fields_of(event))


def text_of(event: Event) -> str:
    """The text of the record of an event that is not a `ServiceError` or `Recovered`."""
    return _FORMATS.get(type(event), _ROUTINE)[1](event)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _delivery_failed(event: DeliveryFailed) -> str:
    retry = "not retried" if event.retry_in is None else f"retried in {event.retry_in:.0f} s"
    return f"{event.request_id}: webhook attempt {event.attempt}: {event.error}; {retry}"


def _rescued(event: Rescued) -> str:
    consequence = "the request runs again soon" if event.state is JobState.DELAYED else f"now {event.state}"
    return f"{event.request_id}: the process that ran it was lost; {consequence}"


def _started(event: Started) -> str:
    of = "" if event.application is None else f" of the application {event.application!r}"
    return f"queue started: {event.database}{of}, concurrency {event.concurrency}"


def _stopping(event: Stopping) -> str:
    work = [
        f"{count} {name}{'' if count == 1 else 's'}"
        for count, name in ((event.requests, "running request"), (event.webhooks, "webhook"))
        if count
    ]
    hurry = "; press Ctrl-C again to stop at once" if event.can_hurry else ""
    return (
        f"queue stopping: waiting at most {event.timeout:g} s for {' and '.join(work)}; what has not ended by then is "
        f"repeated after the restart{hurry}"
    )


def _stopped(event: Stopped) -> str:
    handed_back = event.handed_back
    return f"queue stopped, {handed_back} running request{'' if handed_back == 1 else 's'} handed back"


def _of_submitter(event: CircuitOpened | CircuitClosed) -> str:
    return "" if event.submitter is None else " of one submitter"


_Format = tuple[int, Callable[[Any], str]]

_SHOWN = ("request_id", "path", "attempt", "number", "delivery_id", "host", "duration", "next_in", "outcome")
"""Fields in the text of a routine event. The status that a provider reports is its own text and is not shown."""


def _routine(event: Any) -> str:
    values = {name: value for name in _SHOWN if isinstance(value := getattr(event, name, None), str | int | float)}
    return f"{type(event).__name__}: {', '.join(f'{name} {value}' for name, value in values.items())}"


_ROUTINE: _Format = (logging.DEBUG, _routine)
_FORMATS: Mapping[type, _Format] = {
    Started: (logging.INFO, _started),
    Stopping: (logging.WARNING, _stopping),
    Stopped: (logging.INFO, _stopped),
    AttemptFailed: (
        logging.WARNING,
        lambda e: f"{e.request_id}: attempt {e.attempt} failed ({e.error}), retried in {e.retry_in:.1f} s",
    ),
    ClaimLost: (logging.WARNING, lambda e: f"{e.request_id}: attempt {e.attempt} is discarded, its lease had expired"),
    Rescued: (logging.WARNING, _rescued),
    ApplicationError: (logging.ERROR, lambda e: f"{e.request_id}: the application raised {type(e.error).__name__}"),
    SlotStuck: (
        logging.WARNING,
        lambda e: f"{e.request_id}: still holds its slot after {e.duration:.0f} s and cannot be stopped",
    ),
    PollFailed: (
        logging.WARNING,
        lambda e: f"{e.request_id}: poll {e.number} of the provider failed ({e.error}), retried in {e.retry_in:.1f} s",
    ),
    DeliveryFailed: (logging.WARNING, _delivery_failed),
    DeliveryDead: (
        logging.WARNING,
        lambda e: f"{e.request_id}: webhook given up, delivery {e.delivery_id} is kept: {e.error}",
    ),
    CircuitOpened: (
        logging.WARNING,
        lambda e: f"webhooks{_of_submitter(e)} to {e.host} keep failing; they wait, and one is tried in {e.probe_in:.0f} s",
    ),
    CircuitClosed: (logging.INFO, lambda e: f"webhooks{_of_submitter(e)} to {e.host} are accepted again"),
    Redelivered: (logging.INFO, lambda e: f"{e.count} webhook{' is' if e.count == 1 else 's are'} redelivered"),
    Operated: (logging.INFO, lambda e: f"operator {e.operator}: {e.action} {e.target}, {e.count} changed"),
    KeysChanged: (logging.INFO, lambda e: f"signing keys reloaded, {e.kid} signs"),
    # With the name in front: where logging is not configured, Python prints warnings without the name of their logger.
    OperatorWarning: (logging.WARNING, lambda e: f"queue_middleware: {e.message}"),
    OperatorNotice: (logging.INFO, lambda e: f"queue_middleware: {e.message}"),
}
"""Level and text of each event class; all others are routine."""
