from itertools import product

import pytest

from queue_middleware.lifecycle import FINAL, IS_LOST, JOB, RETRIED_FAILURE, Again, Holder, Pulse, attempts_left, judge
from queue_middleware.models import ErrorType, Failure, Headers, JobState, RetryCause, RetryPolicy, StoredResponse
from queue_middleware.webhooks import DELIVERY, DeliveryEvent, DeliveryState

THREE = RetryPolicy(3)
SERVER_ERROR = RetryCause.SERVER_ERROR


def answer(status: int, *headers: tuple[bytes, bytes]) -> StoredResponse:
    return StoredResponse(status, headers, b"")


def test_nothing_leaves_a_final_state() -> None:
    assert not [state for state, _ in JOB if state in FINAL]
    ended = (DeliveryState.DELIVERED, DeliveryState.SUPERSEDED, DeliveryState.DEAD)
    assert {event for state, event in DELIVERY if state in ended} == {DeliveryEvent.REDELIVER}, "but when somebody asks for it"


def test_every_state_can_be_reached_and_left() -> None:
    assert set(JOB.values()) == set(JobState)
    assert {state for state, _ in JOB} == set(JobState) - FINAL


@pytest.mark.parametrize("status", [200, 204, 301, 400, 404, 408, 422, 429, 500, 501, 502])
def test_answers_that_stand(status: int) -> None:
    assert judge(answer(status), 1, THREE) is None


@pytest.mark.parametrize("status", [503, 504])
def test_answers_that_are_repeated(status: int) -> None:
    assert judge(answer(status), 1, THREE) == Again(SERVER_ERROR)
    assert judge(answer(status, (b"retry-after", b"7")), 2, THREE) == Again(SERVER_ERROR, 7.0)
    assert judge(answer(status), 3, THREE) is None


@pytest.mark.parametrize(
    ("value", "after"), [(b"12", 12.0), (b"99999999", 3600.0), (b"Wed, 21 Oct 2026 07:28:00 GMT", None), (b"-1", None)]
)
def test_429_is_repeated_when_it_says_when(value: bytes, after: float | None) -> None:
    expected = None if after is None else Again(SERVER_ERROR, after)
    assert judge(answer(429, (b"retry-after", value)), 1, THREE) == expected


@pytest.mark.parametrize("status", [200, 404, 500, 503])
def test_the_application_has_the_last_word(status: int) -> None:
    assert judge(answer(status, (b"x-fal-needs-retry", b"1")), 1, THREE) == Again(SERVER_ERROR)
    assert judge(answer(status, (b"x-fal-needs-retry", b"0")), 1, THREE) is None
    assert judge(answer(status, (b"x-fal-needs-retry", b"1")), 3, THREE) is None


@pytest.mark.parametrize("error_type", ErrorType)
def test_failures(error_type: ErrorType) -> None:
    cause = RETRIED_FAILURE.get(error_type)
    assert judge(Failure(error_type, ""), 1, THREE) == (Again(cause) if cause else None)


def test_the_submitters_numbers_are_extra_attempts_for_one_cause() -> None:
    policy = RetryPolicy(3, {RetryCause.TIMEOUT: 1, RetryCause.SERVER_ERROR: 0})
    assert attempts_left(1, RetryCause.TIMEOUT, policy)
    assert not attempts_left(2, RetryCause.TIMEOUT, policy)
    assert not attempts_left(1, RetryCause.SERVER_ERROR, policy)
    assert attempts_left(2, RetryCause.CONNECTION_ERROR, policy)
    assert not attempts_left(3, RetryCause.CONNECTION_ERROR, policy)


def test_an_ordinary_answer_is_judged_without_looking_for_retry_after() -> None:
    headers: Headers = ((b"retry-after", b"5"),)
    assert judge(StoredResponse(200, headers, b""), 1, THREE) is None


# --- leases


def test_every_judgement_of_a_claim_is_in_the_table() -> None:
    assert set(IS_LOST) == set(product(Holder, (False, True), (False, True)))


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("calm", [False, True])
def test_what_a_process_works_on_is_never_taken_by_itself_and_what_the_dead_held_always(over: bool, calm: bool) -> None:
    assert not IS_LOST[Holder.ITSELF, over, calm]
    assert IS_LOST[Holder.DEAD, over, calm]
    assert IS_LOST[Holder.OTHER, over, calm] is (over and calm)


def test_a_pulse_is_calm_after_a_whole_lease_without_a_gap() -> None:
    pulse = Pulse.begin(1000, 60)
    for now in range(1015, 1060, 15):
        assert not pulse.is_calm(now, 60)
        pulse = pulse.beat(now, 60)
    pulse = pulse.beat(1060, 60)
    assert pulse.is_calm(1060, 60)
    assert pulse.is_calm(1090, 60), "as late as a beat may be"


@pytest.mark.parametrize("gap", [31, 60, 10**9])
def test_a_gap_takes_the_calm_for_a_whole_lease_and_before_the_next_beat_already(gap: int) -> None:
    pulse = Pulse(at=1000, calm_from=0)
    back = 1000 + gap
    assert not pulse.is_calm(back, 60)
    pulse = pulse.beat(back, 60)
    assert pulse.calm_from == back + 60
    assert not pulse.is_calm(back, 60)


def test_whoever_renewed_in_time_before_a_gap_that_does_not_count_still_has_time_after_it() -> None:
    """The longest gap without consequences, begun just before a renewal was due, leaves a quarter of a lease."""
    lease, quarter = 60, 15
    renewed = 1000
    gap_begins = renewed + quarter
    pulse = Pulse(at=gap_begins, calm_from=0)
    longest = max(gap for gap in range(lease) if pulse.is_calm(gap_begins + gap, lease))
    assert renewed + lease - (gap_begins + longest) >= quarter
