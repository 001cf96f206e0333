"""The log of an outage: its first failure, its continuation, its end."""

from __future__ import annotations

import logging

import pytest

from queue_middleware.errors import DiskFull, StoreBusy
from queue_middleware.events import Operated, OperatorWarning, Recovered, Rescued, ServiceError, Stopped
from queue_middleware.events.error_streak import ErrorStreak
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.models import JobState
from queue_middleware.observability.event_log import LoggingObserver
from tests.support.clock import Seconds


@pytest.fixture
def clock() -> Seconds:
    return Seconds(0.0)


@pytest.fixture
def journal(clock: Seconds, caplog: pytest.LogCaptureFixture) -> LoggingObserver:
    caplog.set_level(logging.INFO, "queue_middleware")
    return LoggingObserver(clock)


def fail(journal: LoggingObserver, where: str = "delivery", error: Exception | None = None) -> None:
    try:
        raise error or DiskFull("the disk is full", 1)
    except Exception as raised:
        journal.on_event(ServiceError(where, raised, 1.0))


def test_the_first_failure_is_logged_in_full_then_a_count_at_growing_intervals_then_the_end(
    journal: LoggingObserver, clock: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(240):
        fail(journal)
        clock.now += 1
    journal.on_event(Recovered("delivery", 240, 240.0))
    assert caplog.messages == [
        "delivery: DiskFull: the disk is full; continues in 1 s",
        "delivery: 10 more failures in 10 s, the last: DiskFull: the disk is full",
        "delivery: 20 more failures in 30 s, the last: DiskFull: the disk is full",
        "delivery: 40 more failures in 70 s, the last: DiskFull: the disk is full",
        "delivery: 80 more failures in 2 min, the last: DiskFull: the disk is full",
        "delivery: works again, after 240 failures in 4 min",
    ]
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 5 + ["WARNING"]
    assert [record.exc_info is not None for record in caplog.records] == [True] + [False] * 5


def test_a_long_outage_logs_one_line_every_ten_minutes(
    journal: LoggingObserver, clock: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(10_000):
        fail(journal)
        clock.now += 1
    assert len(caplog.messages) < 25


def test_every_source_and_kind_of_failure_is_logged_separately(
    journal: LoggingObserver, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        fail(journal, "delivery")
        fail(journal, "claim")
        fail(journal, "claim", StoreBusy("busy", 1))
    assert [message.split(";")[0] for message in caplog.messages] == [
        "delivery: DiskFull: the disk is full",
        "claim: DiskFull: the disk is full",
        "claim: StoreBusy: busy",
    ]
    journal.on_event(Recovered("claim", 6, 1.0))
    journal.on_event(Recovered("claim", 1, 1.0))
    assert caplog.messages[3:] == ["claim: works again, after 6 failures in 0 s"]


def test_after_the_end_or_a_long_pause_the_next_failure_is_logged_in_full(
    journal: LoggingObserver, clock: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    fail(journal)
    journal.on_event(Recovered("delivery", 1, 1.0))
    fail(journal)
    clock.now += 62
    fail(journal)
    assert [record.exc_info is not None for record in caplog.records] == [True, False, True, True]
    assert caplog.messages[1] == "delivery: works again, after a failure in 0 s"


def test_other_events_are_logged_each_time(journal: LoggingObserver, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        journal.on_event(OperatorWarning("the disk is on fire"))
    assert caplog.messages == ["queue_middleware: the disk is on fire"] * 3


def test_observers_receive_each_failure_and_one_recovery() -> None:
    events: list[object] = []
    streak = ErrorStreak("claim", events.append)
    streak.over()
    error = StoreBusy("busy", 1)
    for _ in range(3):
        streak.met(error, 1.0)
    streak.over()
    streak.over()
    assert events[:3] == [ServiceError("claim", error, 1.0)] * 3
    (end,) = events[3:]
    assert isinstance(end, Recovered)
    assert (end.where, end.failures) == ("claim", 3)


def test_a_rescued_job_is_logged_as_queued_again(caplog: pytest.LogCaptureFixture) -> None:
    journal = LoggingObserver()
    for state in (JobState.DELAYED, JobState.FAILED):
        journal.on_event(Rescued("one", state, "/work"))
    assert caplog.messages == [
        "one: the process that ran it was lost; the request runs again soon",
        "one: the process that ran it was lost; now failed",
    ]


def test_an_error_after_which_nothing_waits_is_logged_without_a_time(caplog: pytest.LogCaptureFixture) -> None:
    LoggingObserver().on_event(ServiceError("route_of", ValueError("oops"), 0))
    assert caplog.messages == ["route_of: ValueError: oops"]


def test_one_request_that_is_handed_back_is_logged_in_the_singular(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "queue_middleware")
    journal = LoggingObserver()
    for count in (0, 1):
        journal.on_event(Stopped(count))
    assert caplog.messages == ["queue stopped, 0 running requests handed back", "queue stopped, 1 running request handed back"]


def test_an_act_of_an_operator_is_logged(journal: LoggingObserver, caplog: pytest.LogCaptureFixture) -> None:
    journal.on_event(Operated("carol", Action.PAUSE, "POST /images", 1))
    assert caplog.messages == ["operator carol: pause POST /images, 1 changed"]
    assert caplog.records[0].levelname == "INFO"
