"""Issues in Sentry: one for each error of an application, and one for each cause that an operator has to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import sentry_sdk
from sentry_sdk.scope import global_event_processors
from sentry_sdk.utils import event_from_exception

from queue_middleware.events import (
    ApplicationError,
    CircuitOpened,
    DeliveryDead,
    Event,
    Recovered,
    Rescued,
    ServiceError,
    SlotStuck,
)
from queue_middleware.jobs.models import JobState

from .bursts import Bursts
from .event_log import text_of
from .record_fields import event_name, fields_of

KINDS: frozenset[type] = frozenset({ApplicationError, CircuitOpened, DeliveryDead, Recovered, Rescued, ServiceError, SlotStuck})
"""The events that `IssueReporter` needs."""
TAGS = ("request_id", "attempt", "route")
_LEVELS = {DeliveryDead: "error", Rescued: "error", CircuitOpened: "warning", SlotStuck: "warning"}
_GROUPED_BY: dict[type, tuple[str, ...]] = {
    ServiceError: ("where", "error"),
    DeliveryDead: ("host", "error"),
    CircuitOpened: ("host",),
    SlotStuck: ("route",),
    Rescued: ("route",),
}
"""Fields of the fingerprint, beside the name of the event: events with the same values are one issue."""
_REPORTED = frozenset(event_name(kind) for kind in (ApplicationError, *_GROUPED_BY))
_seen_errors: ContextVar[list[BaseException] | None] = ContextVar("queue_middleware_sentry_seen_errors", default=None)


class IssueReporter:
    """Reports events as issues. `clock` returns seconds.

    What the integration of a framework has reported during the attempt is not reported again. The logging integration of
    Sentry would make a second issue of the queue's log record; these records are left out of its issues, not of breadcrumbs.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._bursts = Bursts(clock)
        if _drop_record not in global_event_processors:
            # In front of the one that looks for duplicates: it would take the exception of a dropped record as reported.
            global_event_processors.insert(0, _drop_record)

    def report(self, event: Event) -> None:
        """Report an event, unless it is known or needs no attention. Of an outage, the first error of each class is one."""
        if isinstance(event, ApplicationError):
            if not _is_seen(event.error):
                _capture_exception(event.error, event, [])
        elif isinstance(event, ServiceError):
            if self._bursts.of(event).is_new(event.error):
                _capture_exception(event.error, event, _fingerprint(event))
        elif isinstance(event, Recovered):
            self._bursts.end(event)
        elif not isinstance(event, Rescued) or event.state is JobState.FAILED:
            _capture_message(event)


@contextmanager
def watching_errors(scope: sentry_sdk.Scope) -> Iterator[None]:
    """During an attempt: remember the exceptions that are reported in its isolation scope and in forks of it."""
    seen: list[BaseException] = []

    def remember(event: Any, hint: dict[str, Any]) -> Any:
        if exc_info := hint.get("exc_info"):
            seen.append(exc_info[1])
        return event

    scope.add_event_processor(remember)
    token = _seen_errors.set(seen)
    try:
        yield
    finally:
        seen.clear()  # threads of the application keep the context, and with it the scope
        with suppress(ValueError):  # at the end of the event loop an attempt is closed in another context
            _seen_errors.reset(token)


def _is_seen(error: BaseException) -> bool:
    """Whether the exception is reported, or one that a group holds."""
    seen = _seen_errors.get() or ()
    if any(error is one for one in seen):
        return True
    return isinstance(error, BaseExceptionGroup) and any(_is_seen(one) for one in error.exceptions)


def _drop_record(event: Any, hint: dict[str, Any]) -> Any:
    record = hint.get("log_record")
    return None if record is not None and getattr(record, "queue_event", None) in _REPORTED else event


def _fingerprint(event: Event) -> list[str]:
    fields = fields_of(event)
    return ["queue_middleware", event_name(type(event)), *(str(fields[name]) for name in _GROUPED_BY[type(event)])]


def _capture_exception(error: BaseException, event: Event, fingerprint: list[str]) -> None:
    # Local variables of the queue's own frames hold the headers and the body of the request.
    options = {**sentry_sdk.get_client().options, "include_local_variables": False}
    mechanism = {"type": "queue_middleware", "handled": isinstance(event, ServiceError)}
    found, hint = event_from_exception(error, client_options=options, mechanism=mechanism)
    issue: Any = {**found, **_about(event)}
    if fingerprint:
        issue["fingerprint"] = fingerprint
    sentry_sdk.capture_event(issue, hint)


def _capture_message(event: Event) -> None:
    # An entry for threads, because with `attach_stacktrace` Sentry would add one with the local variables of the queue.
    issue: Any = {
        **_about(event),
        "message": text_of(event),
        "level": _LEVELS[type(event)],
        "fingerprint": _fingerprint(event),
        "threads": {"values": []},
    }
    sentry_sdk.capture_event(issue)


def _about(event: Event) -> dict[str, Any]:
    fields = fields_of(event)
    tags = {f"queue.{name}": str(fields[name]) for name in TAGS if fields.get(name) is not None}
    return {"logger": "queue_middleware", "tags": tags, "contexts": {"queue": fields}}
