"""The meter: what is counted for each way in which an attempt and a request end, and what happens to the sums."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from queue_middleware import events
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.ids import SEQUENCE_BITS, format_request_id
from queue_middleware.jobs.models import AttemptEnd, Claim, ErrorType, Failure, JobState, RetryPolicy, StoredResponse
from queue_middleware.jobs.outcomes import CANCELLED
from queue_middleware.observability.emitter import Emitter
from queue_middleware.observability.metrics.catalog import TALLIED_ROUTES, Refusal
from queue_middleware.observability.metrics.meter import Meter
from queue_middleware.observability.metrics.numbers import Numbers, tallies
from tests.support.factories import make_request, make_task

NOW = 1_700_000_000.0
ID = format_request_id(int((NOW - 10) * 1000) << SEQUENCE_BITS, bytes(10))
CANCELLED_END = AttemptEnd(JobState.CANCELLED, None, ErrorType.CLIENT_CANCELLED)
TIMEOUT = Failure(ErrorType.REQUEST_TIMEOUT, "too slow")


def claim(attempt: int = 1, age: float = 3.0, **changes: Any) -> Claim:
    key = int((NOW - age) * 1000) << SEQUENCE_BITS
    return Claim(key, ID, 1, attempt, RetryPolicy(3), make_request(), None, route="/work").replace(**changes)


@pytest.fixture
def meter() -> Meter:
    return Meter(lambda: NOW)


def counters(numbers: Numbers) -> dict[str, float]:
    """The values of counters, by name and labels."""
    names = {f"{name} {labels}".replace("\n", " ").strip(): value for name, labels, bucket, value in numbers.rows if not bucket}
    return {name: value for name, value in names.items() if "_total" in name}


def histogram(numbers: Numbers, metric: str) -> tuple[float, int]:
    """The sum of a histogram, and how many observations it has."""
    rows = [row for row in numbers.rows if row[0] == metric]
    return sum(row[3] for row in rows if not row[2]), int(sum(row[3] for row in rows if row[2]))


@pytest.mark.parametrize(
    ("outcome", "end", "ending", "finished"),
    [
        (StoredResponse(200, (), b"1"), None, "responded", "2xx"),
        (StoredResponse(503, (), b"1"), None, "responded", "5xx"),
        (StoredResponse(503, (), b"1"), AttemptEnd(JobState.DELAYED), "retried", None),
        (StoredResponse(200, (), b"1"), AttemptEnd(JobState.AWAITING), "responded", None),
        (StoredResponse(200, (), b"1"), AttemptEnd(JobState.COMPLETED, 201), "responded", "2xx"),
        (
            StoredResponse(503, (), b"1"),
            AttemptEnd(JobState.CANCELLED, None, ErrorType.CLIENT_CANCELLED),
            "cancelled",
            "cancelled",
        ),
        (TIMEOUT, None, "timed_out", "failed"),
        (TIMEOUT, AttemptEnd(JobState.DELAYED), "timed_out", None),
        (Failure(ErrorType.RUNNER_SERVER_ERROR, "raised"), None, "failed", "failed"),
        (CANCELLED, None, "cancelled", "cancelled"),
        (None, AttemptEnd(JobState.QUEUED), "handed_back", None),
        (None, AttemptEnd(JobState.FAILED, None, ErrorType.RUNNER_DISCONNECTED), "handed_back", "failed"),
    ],
)
def test_each_end_of_an_attempt_is_counted_once(
    meter: Meter, outcome: Any, end: Any, ending: str, finished: str | None
) -> None:
    meter.attempt_ended(claim(), outcome, end, 0.5)
    numbers = meter.take()
    found = counters(numbers)
    assert {name: value for name, value in found.items() if name.startswith("attempts")} == {
        f"attempts_total /work {ending}": 1
    }
    assert [name for name in found if name.startswith("requests_finished")] == (
        [f"requests_finished_total /work {finished}"] if finished else []
    )
    assert histogram(numbers, "attempt_seconds") == (0.5, 1)
    assert histogram(numbers, "request_seconds") == ((3.0, 1) if finished else (0, 0))


def test_the_error_of_a_request_without_response_is_counted(meter: Meter) -> None:
    meter.attempt_ended(claim(), TIMEOUT, None, 0.5)
    assert counters(meter.take())["request_failures_total /work request_timeout"] == 1


def test_only_the_first_start_of_a_request_counts_as_a_wait(meter: Meter) -> None:
    meter.started(claim())
    meter.started(claim(attempt=2))
    assert histogram(meter.take(), "wait_seconds") == (3.0, 1)


def test_the_wait_of_a_task_begins_when_it_is_due(meter: Meter) -> None:
    meter.started(claim(age=1000.0, task=make_task(due_at=int((NOW - 2) * 1000))))
    meter.started(claim(age=1000.0, task=make_task(due_at=int((NOW + 60) * 1000))))  # an operator has started it before
    assert histogram(meter.take(), "wait_seconds") == (2.0, 2)


def test_a_request_that_ends_without_an_attempt_gets_its_route_later(meter: Meter) -> None:
    meter.on_event(events.Finished.of(ID, 0, CANCELLED, 0.0))
    (unrouted,) = meter.take().unrouted
    assert unrouted.request_id == ID
    assert ("requests_finished_total", "\ncancelled", 0, 1) in unrouted.rows
    assert ("request_seconds", "\ncancelled", 0, 10.0) in unrouted.rows
    assert ("request_failures_total", "\nclient_cancelled", 0, 1) in unrouted.rows


def test_an_end_that_other_observers_receive_is_not_counted_twice(meter: Meter) -> None:
    meter.on_event(events.Finished(ID, 1, "/work", 200, None, 0.1))
    assert not meter.has_counted


def test_the_meter_needs_no_events_for_every_request(meter: Meter) -> None:
    emit = Emitter([meter])
    for kind in (events.Submitted, events.AttemptStarted, events.Finished):
        assert not events.is_observed(emit, kind)
    emit(events.Finished.of(ID, 0, CANCELLED, 0.0))
    assert meter.has_counted


SENT = (1, ID, "completed", "secret-host.test", 1)


@pytest.mark.parametrize(
    ("event", "counter"),
    [
        (events.Delivered(*SENT, 200, 0.1, 1.0), "webhook_attempts_total delivered"),
        (events.DeliveryFailed(*SENT, 410, "response", "x", 0.1, None), "webhook_attempts_total 410"),
        (events.DeliveryFailed(*SENT, 429, "response", "x", 0.1, None), "webhook_attempts_total 429"),
        (events.DeliveryFailed(*SENT, 302, "response", "x", 0.1, None), "webhook_attempts_total 3xx"),
        (events.DeliveryFailed(*SENT, 503, "response", "x", 0.1, 5.0), "webhook_attempts_total 5xx"),
        (events.DeliveryFailed(*SENT, None, "timeout", "x", 0.1, 5.0), "webhook_attempts_total timeout"),
        (events.DeliveryDead(*SENT, "x"), "webhooks_given_up_total"),
        (events.CircuitOpened("secret-host.test", 1.0), "circuits_total open"),
        (events.CircuitClosed("secret-host.test"), "circuits_total closed"),
        (events.ClaimLost(ID, 1, "/work"), "leases_lost_total"),
        (events.Operated("ada", Action.PAUSE, "/work", 1), "operator_actions_total pause"),
        (events.Polled(ID, 1, "fal", "secret-status", 5.0), "polls_total fal unfinished"),
        (events.PollFailed(ID, 1, None, "x", 5.0), "polls_total other failed"),
        (events.ResultReceived(ID, "callback", "ended"), "task_results_total callback ended"),
        (events.ServiceError("claim", OSError("secret-text"), 1.0), "outages_total claim"),
    ],
)
def test_events_are_counted_by_fixed_words(meter: Meter, event: Any, counter: str) -> None:
    meter.on_event(event)
    assert counters(meter.take()) == {counter: 1}


def test_a_rescue_counts_the_lost_attempt(meter: Meter) -> None:
    meter.on_event(events.Rescued(ID, JobState.DELAYED, "/work"))
    assert counters(meter.take()) == {"attempts_total /work lost": 1, "rescued_total delayed": 1}


def test_every_kind_that_it_wants_is_counted(meter: Meter) -> None:
    """A kind without a row in the table would raise at its first event."""
    from queue_middleware.observability.metrics.meter import _COUNTED

    assert set(_COUNTED) == Meter.kinds


def test_numbers_that_could_not_be_stored_are_taken_again(meter: Meter) -> None:
    meter.submitted("/work")
    meter.refused(Refusal.FULL)
    meter.on_event(events.Finished.of(ID, 0, CANCELLED, 0.0))
    failed = meter.take()
    assert not meter.has_counted
    meter.put_back(failed)
    assert meter.has_counted
    meter.submitted("/work")
    again = meter.take()
    sums: dict[str, float] = {}
    for name, labels, _, value in again.rows:
        sums[name + labels] = sums.get(name + labels, 0) + value
    assert sums == {"requests_submitted_total/work": 2, "requests_refused_totalfull": 1}
    assert again.unrouted == failed.unrouted
    assert not meter.has_counted


def test_transactions_alone_are_nothing_to_store(meter: Meter) -> None:
    """Storing numbers is a transaction. If it counted as something to store, an idle queue would write every second."""
    meter.committed(0.01, 3)
    assert not meter.has_counted
    meter.submitted("/work")
    assert histogram(meter.take(), "commit_operations") == (3, 1)


def test_many_transactions_are_not_kept_in_memory(meter: Meter) -> None:
    """A process that only shows that the database can be written, for health checks, counts nothing else for weeks."""
    for _ in range(1000):
        assert not meter.has_counted
        meter.committed(0.01, 1)
    assert meter.has_counted


def test_many_ends_are_stored_in_several_transactions(meter: Meter) -> None:
    for _ in range(1200):
        meter.on_event(events.Finished.of(ID, 0, CANCELLED, 0.0))
    assert [len(meter.take().unrouted) for _ in range(4)] == [500, 500, 200, 0]


def test_few_routes_are_kept_by_minute(meter: Meter) -> None:
    for number in range(TALLIED_ROUTES + 5):
        meter.submitted(f"/{number}")
    numbers = meter.take()
    rows = {route: value for _, route, _, value in tallies(numbers.rows, numbers.tallied)}
    assert len(rows) == TALLIED_ROUTES + 1
    assert rows["other"] == 5


def test_the_tallies_of_ends_are_divided(meter: Meter) -> None:
    for status in (200, 404, 500):
        meter.attempt_ended(claim(), StoredResponse(status, (), b""), None, 0.5)
    meter.attempt_ended(claim(), TIMEOUT, None, 0.5)
    meter.attempt_ended(claim(), CANCELLED, None, 0.5)
    numbers = meter.take()
    found = {name: value for name, _, bucket, value in tallies(numbers.rows, numbers.tallied) if not bucket}
    assert found == {"requests_finished_total": 5, "requests_failed": 2, "requests_cancelled": 1, "attempt_seconds": 2.5}


def test_it_needs_no_package_of_the_extra() -> None:
    assert "queue_middleware.observability.metrics.meter" in sys.modules
    assert not [name for name in vars(sys.modules["queue_middleware.observability.metrics.meter"]) if "prometheus" in name]
