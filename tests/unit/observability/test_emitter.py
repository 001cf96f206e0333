"""Which events reach which observer, and which need not be made."""

from __future__ import annotations

import pytest

from queue_middleware.events import AttemptStarted, Event, Redelivered, Stopped, Submitted, is_observed
from queue_middleware.observability.emitter import Emitter


class Observing:
    def __init__(self, kinds: frozenset[type[Event]] | None) -> None:
        self.kinds = kinds
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)


def test_an_observer_with_kinds_receives_only_those() -> None:
    every, some = Observing(None), Observing(frozenset({Redelivered}))
    emit = Emitter([every, some])
    emit(Redelivered(1))
    emit(Stopped(0))
    assert [type(event) for event in every.events] == [Redelivered, Stopped]
    assert [type(event) for event in some.events] == [Redelivered]


def test_an_event_is_not_needed_if_no_observer_wants_its_kind() -> None:
    emit = Emitter([Observing(frozenset({Submitted}))])
    assert is_observed(emit, Submitted)
    assert not is_observed(emit, AttemptStarted)
    assert is_observed(Emitter([Observing(None)]), AttemptStarted)


def test_a_plain_function_may_want_every_event() -> None:
    events: list[Event] = []
    assert is_observed(events.append, AttemptStarted)


def test_an_observer_that_raises_does_not_affect_others(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def on_event(self, event: Event) -> None:
            raise LookupError

    observer = Observing(None)
    Emitter([Broken(), observer])(Redelivered(1))
    assert len(observer.events) == 1
    assert "an observer failed to handle the event Redelivered" in caplog.text
