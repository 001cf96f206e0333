"""The note that names the request on an exception of the application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from queue_middleware.jobs.models import Claim, RetryPolicy
from queue_middleware.worker.error_notes import add_note
from tests.support.factories import make_request


def claim_of(request_id: str, attempt: int = 1) -> Claim:
    return Claim(1, request_id, 1, attempt, RetryPolicy(3), make_request(), None, route="/items/{id}")


def notes(error: BaseException) -> list[Any]:
    return getattr(error, "__notes__", [])


def test_the_note_names_request_attempt_and_route() -> None:
    error = ValueError("no herring")
    add_note(error, claim_of("one", 2))
    assert notes(error) == ["queue request one, attempt 2 of /items/{id}"]


def test_an_object_that_is_raised_again_names_only_the_last_attempt() -> None:
    error = ValueError("a constant of the module")
    error.add_note("a note of the application")
    for attempt in range(100):
        add_note(error, claim_of("one", attempt))
    add_note(error, claim_of("two"))
    assert notes(error) == ["a note of the application", "queue request two, attempt 1 of /items/{id}"]


def test_a_group_is_noted_as_a_whole() -> None:
    group = BaseExceptionGroup("several", [ValueError(), KeyboardInterrupt()])
    add_note(group, claim_of("one"))
    assert [len(notes(error)) for error in (group, *group.exceptions)] == [1, 0, 0]


@dataclass(frozen=True)
class Frozen(Exception):
    detail: str


class Refuses(Exception):
    def add_note(self, note: str) -> None:
        raise LookupError


class Odd(Exception):
    __notes__ = ("not", "a", "list", 5)


class Hides(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise AttributeError(name)


@pytest.mark.parametrize("error", [Frozen("x"), Refuses(), Odd(), Hides()], ids=lambda error: type(error).__name__)
def test_an_exception_that_takes_no_note_stays_as_it_is(error: Exception) -> None:
    add_note(error, claim_of("one"))
    add_note(error, claim_of("two"))
    assert len([note for note in _notes_of(error) if "queue request" in str(note)]) <= 1


def _notes_of(error: Exception) -> Any:
    return error.__dict__.get("__notes__", ()) if not isinstance(error, Hides) else ()
