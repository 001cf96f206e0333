"""Which events become issues in Sentry, and what these contain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import sentry_sdk

from queue_middleware import events
from queue_middleware.events import Event
from queue_middleware.jobs.models import JobState, WebhookKind
from queue_middleware.observability.emitter import Emitter
from queue_middleware.observability.sentry import SentryObserver
from queue_middleware.observability.sentry_issues import IssueReporter
from tests.support.clock import Seconds
from tests.support.sentry import Sent, reporting
from tests.unit.observability.test_record_fields import TABLE

ATTEMPT = {"request_id": "r", "attempt": 2, "route": "/items/{id}"}
TAGS = {"queue.request_id": "r", "queue.attempt": "2", "queue.route": "/items/{id}"}
SENT = (7, "r", WebhookKind.COMPLETED, "receiver.test", 3)


@pytest.fixture
def sent() -> Iterator[Sent]:
    with reporting(attach_stacktrace=True) as sent:
        yield sent


def raised(error: Exception) -> Exception:
    secret = "can" + "ary"  # in pieces, because Sentry shows the source of this line
    try:
        assert secret
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("event", "level", "fingerprint", "tags"),
    [
        (events.DeliveryDead(*SENT, "status 500"), "error", ["delivery_dead", "receiver.test", "status 500"],
         {"queue.request_id": "r", "queue.attempt": "3"}),
        (events.CircuitOpened("receiver.test", 60.0, "account"), "warning", ["circuit_opened", "receiver.test"], {}),
        (events.SlotStuck(**ATTEMPT, duration=9.0), "warning", ["slot_stuck", "/items/{id}"], TAGS),
        (
        events.Rescued("r", JobState.FAILED, "/items/{id}"),
        "error",
        ["rescued", "/items/{id}"],
        {"queue.request_id": "r", "queue.route": "/items/{id}"},
    ),
    ],
)  # fmt: skip
def test_what_an_operator_has_to_know_is_an_issue(
    event: Event, level: str, fingerprint: list[str], tags: dict[str, str], sent: Sent
) -> None:
    SentryObserver().on_event(event)
    (issue,) = sent.issues
    assert issue["level"] == level
    assert issue["fingerprint"] == ["queue_middleware", *fingerprint]
    assert issue["tags"] == tags
    assert issue["logger"] == "queue_middleware"
    assert issue["contexts"]["queue"]["queue_event"] == fingerprint[0]
    assert "vars" not in json.dumps(issue)  # no frames, though `attach_stacktrace` is on
    assert "account" not in json.dumps(issue)


def test_other_events_are_no_issues(sent: Sent) -> None:
    observer = SentryObserver()
    emit = Emitter([observer])
    reported = {events.ApplicationError, events.ServiceError, events.DeliveryDead, events.CircuitOpened, events.SlotStuck}
    for event, _ in TABLE:
        if type(event) not in {*reported, events.Rescued}:
            emit(event)
    emit(events.Rescued("r", JobState.DELAYED, "/items/{id}"))
    assert sent.events == []
    assert observer.kinds == {*reported, events.Rescued, events.Recovered}
    assert observer.kinds < set(get_args(Event))


def test_an_error_of_the_application_is_an_issue_without_local_variables(sent: Sent) -> None:
    error = raised(ValueError("no herring"))
    error.add_note("queue request r, attempt 2 of /items/{id}")
    SentryObserver().on_event(events.ApplicationError(**ATTEMPT, error=error))
    (issue,) = sent.issues
    (value,) = issue["exception"]["values"]
    assert (value["type"], value["value"]) == ("ValueError", "no herring\nqueue request r, attempt 2 of /items/{id}")
    assert value["mechanism"] == {"type": "queue_middleware", "handled": False}
    assert issue["tags"] == TAGS
    assert "fingerprint" not in issue  # grouped by its traceback
    assert [frame["function"] for frame in value["stacktrace"]["frames"]] == ["raised"]
    assert "canary" not in json.dumps(sent.events)


def test_an_outage_is_one_issue_for_each_class_of_error(sent: Sent) -> None:
    clock = Seconds(0.0)
    reporter = IssueReporter(clock)
    for _ in range(100):
        reporter.report(events.ServiceError("claim", raised(OSError("gone")), 1.0))
        reporter.report(events.ServiceError("claim", raised(ValueError("odd")), 1.0))
        clock.now += 1
    assert [issue["fingerprint"] for issue in sent.issues] == [
        ["queue_middleware", "service_error", "claim", "OSError"],
        ["queue_middleware", "service_error", "claim", "ValueError"],
    ]
    reporter.report(events.Recovered("claim", 200, 100.0))
    reporter.report(events.ServiceError("claim", raised(OSError("gone")), 1.0))
    assert len(sent.issues) == 3
    clock.now += 100
    reporter.report(events.ServiceError("claim", raised(OSError("gone")), 1.0))
    assert len(sent.issues) == 4


def test_without_an_initialized_sdk_nothing_is_reported() -> None:
    assert not sentry_sdk.is_initialized()
    SentryObserver().on_event(events.ApplicationError(**ATTEMPT, error=ValueError()))


def test_several_observers_drop_records_once() -> None:
    processors: list[Any] = sentry_sdk.scope.global_event_processors
    SentryObserver()
    before = list(processors)
    SentryObserver()
    assert processors == before
