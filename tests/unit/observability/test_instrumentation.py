from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import Mock

import pytest

from queue_middleware.errors import StoreBusy
from queue_middleware.events import ServiceError
from queue_middleware.instrumentation import Instrumentation, Instruments, SubmissionWork
from queue_middleware.jobs.models import Claim, RetryPolicy
from queue_middleware.observability import instrumentation
from tests.support.doubles import EventRecorder
from tests.support.factories import make_job, make_request


class Noting(Instrumentation):
    """Notes what is entered and exited, and raises where it is asked to."""

    def __init__(self, name: str, notes: list[str], *, fails_at: str = "") -> None:
        self.name, self.notes, self.fails_at = name, notes, fails_at

    def _meet(self, step: str) -> None:
        if step == self.fails_at:
            raise RuntimeError(step)

    @contextmanager
    def _note(self) -> Iterator[None]:
        self._meet("enter")
        self.notes.append(f"enter {self.name}")
        try:
            yield
        except BaseException as error:
            self.notes.append(f"{self.name} sees {type(error).__name__}")
            raise
        finally:
            self.notes.append(f"exit {self.name}")
            self._meet("exit")

    def submission(self, work: SubmissionWork) -> AbstractContextManager[object]:
        self._meet("call")
        return self._note()


class BusyStore:
    """A store that cannot be reached."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def keep_trace(self, claim: Claim, context: str, on_result: Any) -> None:
        self.kept.append(context)
        on_result(StoreBusy("busy", 5))

    async def trace_of(self, key: int) -> str | None:
        raise StoreBusy("busy", 5)


def combine(parts: tuple[Instrumentation, ...], events: EventRecorder, store: object = None) -> Instruments:
    given: Any = store
    combined = instrumentation.combine(parts, given, events.on_event)
    assert combined is not None
    return combined


@pytest.fixture
def events() -> EventRecorder:
    return EventRecorder()


def work() -> SubmissionWork:
    return SubmissionWork(make_job(), ())


def test_without_an_instrumentation_there_is_nothing_to_enter(events: EventRecorder) -> None:
    store: Any = None
    assert instrumentation.combine((), store, events.on_event) is None


def test_several_are_entered_in_order_and_exited_in_reverse(events: EventRecorder) -> None:
    notes: list[str] = []
    combined = combine((Noting("a", notes), Instrumentation(), Noting("b", notes)), events)
    with combined.submission(work()):
        notes.append("work")
    assert notes == ["enter a", "enter b", "work", "exit b", "exit a"]


def test_a_method_that_is_not_overridden_is_not_called(events: EventRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    combined = combine((Noting("a", notes), Instrumentation()), events)
    assert combined.submission(work()) is not combined.submission(work())
    assert combined.call(Mock()) is combined.call(Mock())
    late = Instrumentation()
    monkeypatch.setattr(late, "action", Noting("late", notes).submission)
    with combine((late,), events).action(Mock()):
        assert notes == ["enter late"]


def test_the_error_of_the_work_is_seen_and_not_suppressed(events: EventRecorder) -> None:
    notes: list[str] = []
    combined = combine((Noting("a", notes), Noting("b", notes)), events)
    with pytest.raises(KeyError), combined.submission(work()):
        raise KeyError
    assert notes == ["enter a", "enter b", "b sees KeyError", "exit b", "a sees KeyError", "exit a"]
    assert events.events == []


@pytest.mark.parametrize("step", ["call", "enter", "exit"])
def test_a_faulty_one_is_reported_and_disturbs_neither_the_work_nor_the_others(step: str, events: EventRecorder) -> None:
    notes: list[str] = []
    combined = combine((Noting("a", notes, fails_at=step), Noting("b", notes)), events)
    with combined.submission(work()):
        notes.append("work")
    with pytest.raises(KeyError), combined.submission(work()):
        raise KeyError
    assert notes.count("work") == 1
    assert notes.count("exit b") == 2
    assert [(event.where, str(event.error)) for event in events.of(ServiceError)] == [("instrumentation", step)] * 2


def test_the_values_show_no_data_of_the_submitter() -> None:
    assert "secret" not in repr(SubmissionWork(make_job(), ((b"authorization", b"secret"),)))


async def test_a_store_that_fails_is_reported_and_disturbs_nothing(events: EventRecorder) -> None:
    store = BusyStore()
    combined = combine((Instrumentation(),), events, store)
    claim = Claim(1, "id", 7, 1, RetryPolicy(3), make_request(), None)
    combined.keep_trace(claim)
    assert store.kept == []
    combined.keep_trace(claim.replace(trace="context"))
    assert store.kept == ["context"]
    assert await combined.trace_of(1) is None
    assert [event.where for event in events.of(ServiceError)] == ["instrumentation"] * 2
