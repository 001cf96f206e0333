"""Every record of the queue's logger has fields; this table is complete, and the page of events has the same rules."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from queue_middleware import events
from queue_middleware.events import Event
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.models import ErrorType, JobState, WebhookKind
from queue_middleware.observability.emitter import Emitter
from queue_middleware.observability.event_log import LoggingObserver

ERROR = ValueError("secret of the application")
ATTEMPT = {"request_id": "r", "attempt": 2, "route": "/items/{id}"}
DELIVERY = {"delivery_id": 7, "request_id": "r", "kind": "completed", "host": "receiver.test", "attempt": 3}
SENT = (7, "r", WebhookKind.COMPLETED, "receiver.test", 3)
TABLE: list[tuple[Event, dict[str, Any]]] = [
    (
        events.Started("/queue.db", 4, "shop"),
        {"queue_event": "started", "database": "/queue.db", "concurrency": 4, "application": "shop"},
    ),
    (
        events.Stopping(1, 2, 30.0, True),
        {"queue_event": "stopping", "requests": 1, "webhooks": 2, "timeout": 30.0, "can_hurry": True},
    ),
    (events.Stopped(1), {"queue_event": "stopped", "handed_back": 1}),
    (
        events.ServiceError("claim", ERROR, 1.5),
        {"queue_event": "service_error", "where": "claim", "error": "ValueError", "retry_in": 1.5},
    ),
    (events.Recovered("claim", 3, 4.5), {"queue_event": "recovered", "where": "claim", "failures": 3, "seconds": 4.5}),
    (events.KeysChanged("key-1"), {"queue_event": "keys_changed", "kid": "key-1"}),
    (events.OperatorWarning("little space"), {"queue_event": "operator_warning"}),
    (events.OperatorNotice("a note"), {"queue_event": "operator_notice"}),
    (
        events.Submitted("r", "/items/{id}", "/items/1"),
        {"queue_event": "submitted", "request_id": "r", "route": "/items/{id}", "path": "/items/1"},
    ),
    (events.AttemptStarted(**ATTEMPT), {"queue_event": "attempt_started", **ATTEMPT}),
    (
        events.AttemptFailed(**ATTEMPT, error="status 503", retry_in=2.0),
        {"queue_event": "attempt_failed", **ATTEMPT, "error": "status 503", "retry_in": 2.0},
    ),
    (events.JobAwaiting(**ATTEMPT), {"queue_event": "job_awaiting", **ATTEMPT}),
    (events.TaskProgress("r", "text of the provider"), {"queue_event": "task_progress", "request_id": "r"}),
    (
        events.Finished(**ATTEMPT, status=None, error=ErrorType.REQUEST_TIMEOUT, duration=0.5),
        {"queue_event": "finished", **ATTEMPT, "status": None, "error": "request_timeout", "seconds": 0.5},
    ),
    (events.ClaimLost(**ATTEMPT), {"queue_event": "claim_lost", **ATTEMPT}),
    (
        events.Rescued("r", JobState.FAILED, "/work"),
        {"queue_event": "rescued", "request_id": "r", "state": "failed", "route": "/work"},
    ),
    (
        events.ApplicationError(**ATTEMPT, error=ERROR),
        {"queue_event": "application_error", **ATTEMPT, "error": "ValueError"},
    ),
    (events.SlotStuck(**ATTEMPT, duration=9.0), {"queue_event": "slot_stuck", **ATTEMPT, "seconds": 9.0}),
    (
        events.Polled("r", 2, "fal", "text of the provider", 5.0),
        {"queue_event": "polled", "request_id": "r", "number": 2, "provider": "fal", "next_in": 5.0},
    ),
    (
        events.PollFailed("r", 2, None, "status 500", 5.0),
        {
            "queue_event": "poll_failed",
            "request_id": "r",
            "number": 2,
            "provider": None,
            "error": "status 500",
            "retry_in": 5.0,
        },
    ),
    (
        events.ResultReceived("r", "callback", "ended"),
        {"queue_event": "result_received", "request_id": "r", "channel": "callback", "outcome": "ended"},
    ),
    (
        events.Delivered(*SENT, 200, 0.25, 3.0),
        {"queue_event": "delivered", **DELIVERY, "status": 200, "seconds": 0.25, "lag": 3.0},
    ),
    (
        events.DeliveryFailed(*SENT, None, "timeout", "no response", 0.25, None),
        {
            "queue_event": "delivery_failed",
            **DELIVERY,
            "status": None,
            "cause": "timeout",
            "error": "no response",
            "seconds": 0.25,
            "retry_in": None,
        },
    ),
    (events.DeliveryDead(*SENT, "no response"), {"queue_event": "delivery_dead", **DELIVERY, "error": "no response"}),
    (
        events.CircuitOpened("receiver.test", 60.0, "account-1"),
        {"queue_event": "circuit_opened", "host": "receiver.test", "probe_in": 60.0},
    ),
    (events.CircuitClosed("receiver.test", "account-1"), {"queue_event": "circuit_closed", "host": "receiver.test"}),
    (events.Redelivered(3), {"queue_event": "redelivered", "count": 3}),
    (
        events.Operated("carol", Action.PAUSE, "/items/{id}", 1),
        {"queue_event": "operated", "operator": "carol", "action": "pause", "target": "/items/{id}", "count": 1},
    ),
]
PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""Attributes that every record has; `message` is set by formatters."""
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "events.md"


def logged(caplog: pytest.LogCaptureFixture, event: Event) -> logging.LogRecord:
    """The one record of the event, at the lowest level."""
    caplog.set_level(logging.DEBUG, "queue_middleware")
    observer = LoggingObserver()
    if isinstance(event, events.Recovered):
        observer.on_event(events.ServiceError(event.where, ERROR, 1.0))
        caplog.clear()
    observer.on_event(event)
    (record,) = caplog.records
    return record


def extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in PLAIN}


def test_the_table_has_every_event_once() -> None:
    assert [type(event) for event, _ in TABLE] == list(get_args(Event))


@pytest.mark.parametrize(("event", "fields"), TABLE, ids=lambda value: type(value).__name__)
def test_the_record_of_an_event_has_its_fields(event: Event, fields: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    found = extra(logged(caplog, event))
    assert found == fields
    assert json.loads(json.dumps(found)) == fields  # without an encoder of their own
    assert {type(value) for value in found.values()} <= {str, int, float, bool, type(None)}


def test_a_count_of_further_failures_has_the_fields_of_the_last(caplog: pytest.LogCaptureFixture) -> None:
    seconds = [0.0]
    observer = LoggingObserver(lambda: seconds[0])
    for seconds[0] in (0.0, 11.0):
        observer.on_event(events.ServiceError("claim", ERROR, 1.5))
    first, count = caplog.records
    assert "1 more failure in" in count.getMessage()
    assert (
        extra(first)
        == extra(count)
        == {"queue_event": "service_error", "where": "claim", "error": "ValueError", "retry_in": 1.5}
    )


def test_a_failed_observer_is_logged_with_a_name(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def on_event(self, event: Event) -> None:
            raise LookupError

    Emitter([Broken()])(events.Redelivered(1))
    assert extra(caplog.records[0]) == {"queue_event": "observer_failed"}


def test_every_call_of_the_queues_logger_names_its_record() -> None:
    sources = Path(events.__file__).parents[1].rglob("*.py")
    calls = [
        (source.name, call)
        for source in sources
        for call in re.findall(r"_log\.(?:log|debug|info|warning|error|exception)\((?:[^()]|\([^()]*\))*\)", source.read_text())
    ]
    assert len(calls) >= 8
    assert [call for call in calls if "extra=" not in call[1]] == []
    names = set(re.findall(r'"queue_event": "(\w+)"', " ".join(call for _, call in calls)))
    listed = set(re.findall(r"^\* `([a-z_]+)`: ", PAGE.read_text("utf-8"), re.MULTILINE))
    assert names == listed


def test_no_fields_are_made_for_a_level_that_is_off(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_middleware.observability.event_log.fields_of", lambda event: pytest.fail("fields were made"))
    observer = LoggingObserver()
    caplog.set_level(logging.CRITICAL, "queue_middleware")
    for event, _ in TABLE:
        if not isinstance(event, events.ServiceError | events.Recovered):
            observer.on_event(event)
    assert caplog.records == []


def test_routine_events_do_not_reach_the_log_where_debug_is_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "queue_middleware")
    kinds = LoggingObserver().kinds
    assert kinds is not None
    assert {events.Submitted, events.AttemptStarted, events.Finished}.isdisjoint(kinds)
