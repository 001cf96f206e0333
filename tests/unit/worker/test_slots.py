from __future__ import annotations

from dataclasses import dataclass

import pytest

from queue_middleware.jobs.models import Claim, NewJob, RetryPolicy
from queue_middleware.worker.slots import JobSlots
from tests.support.factories import make_job, make_request


@dataclass(eq=False)
class Attempt:
    claim: Claim


def make_attempt(token: int) -> Attempt:
    return Attempt(Claim(1, "id", token, 1, RetryPolicy(3), make_request(), None))


@pytest.fixture
def freed() -> list[str]:
    return []


@pytest.fixture
def slots(freed: list[str]) -> JobSlots[Attempt]:
    return JobSlots(3, lambda: freed.append("free"))


@pytest.fixture
def job() -> NewJob:
    return make_job()


def test_reservations_and_attempts_share_the_slots(slots: JobSlots[Attempt], job: NewJob) -> None:
    slots.occupy(make_attempt(7))
    assert [slots.reserve(job) for _ in range(3)] == [True, True, False]
    assert slots.free == 0
    slots.unreserve()
    assert slots.free == 1
    assert slots.reserve(job)


@pytest.mark.parametrize(("occupied", "reserved"), [(0, 2), (1, 1), (2, 1), (3, 0), (4, 0)])
def test_claims_use_half_of_the_free_slots(slots: JobSlots[Attempt], occupied: int, reserved: int) -> None:
    for token in range(occupied):
        slots.occupy(make_attempt(token))
    assert slots.reserve_for_queue() == reserved
    assert slots.free == 3 - occupied - reserved


def test_vacating_is_notified_once(slots: JobSlots[Attempt], freed: list[str]) -> None:
    attempt = make_attempt(7)
    slots.occupy(attempt)
    assert slots.tokens() == [7]
    assert not slots.are_empty
    slots.vacate(attempt)
    slots.vacate(attempt)
    assert freed == ["free"]
    assert slots.are_empty


def test_an_overstaying_attempt_has_no_slot_and_is_kept_until_it_ends(slots: JobSlots[Attempt], freed: list[str]) -> None:
    attempt = make_attempt(7)
    slots.occupy(attempt)
    slots.vacate(attempt, still_running=True)
    assert (slots.free, slots.tokens(), slots.overstaying) == (3, [], {attempt})
    slots.vacate(attempt)
    assert slots.overstaying == set()
    assert freed == ["free"]


def test_slots_are_not_empty_while_one_is_reserved(slots: JobSlots[Attempt], job: NewJob) -> None:
    assert slots.reserve(job)
    assert not slots.are_empty
    slots.unreserve()
    assert slots.are_empty
