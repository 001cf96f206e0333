from itertools import product

import pytest

from queue_middleware.jobs.leases import IS_LOST, DatabaseUptime, Holder


def test_every_judgement_of_a_claim_is_in_the_table() -> None:
    assert set(IS_LOST) == set(product(Holder, (False, True), (False, True)))


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("calm", [False, True])
def test_what_a_process_works_on_is_never_taken_by_itself_and_what_the_dead_held_always(over: bool, calm: bool) -> None:
    assert not IS_LOST[Holder.ITSELF, over, calm]
    assert IS_LOST[Holder.EXITED, over, calm]
    assert IS_LOST[Holder.OTHER, over, calm] is (over and calm)


def test_a_pulse_is_calm_after_a_whole_lease_without_a_gap() -> None:
    pulse = DatabaseUptime.begin(1000, 60)
    for now in range(1015, 1060, 15):
        assert not pulse.is_stable(now, 60)
        pulse = pulse.after_commit(now, 60)
    pulse = pulse.after_commit(1060, 60)
    assert pulse.is_stable(1060, 60)
    assert pulse.is_stable(1090, 60), "as late as a beat may be"


@pytest.mark.parametrize("gap", [31, 60, 10**9])
def test_a_gap_takes_the_calm_for_a_whole_lease_and_before_the_next_beat_already(gap: int) -> None:
    pulse = DatabaseUptime(at=1000, stable_from=0)
    back = 1000 + gap
    assert not pulse.is_stable(back, 60)
    pulse = pulse.after_commit(back, 60)
    assert pulse.stable_from == back + 60
    assert not pulse.is_stable(back, 60)


def test_whoever_renewed_in_time_before_a_gap_that_does_not_count_still_has_time_after_it() -> None:
    """The longest gap without consequences, begun just before a renewal was due, leaves a quarter of a lease."""
    lease, quarter = 60, 15
    renewed = 1000
    gap_begins = renewed + quarter
    pulse = DatabaseUptime(at=gap_begins, stable_from=0)
    longest = max(gap for gap in range(lease) if pulse.is_stable(gap_begins + gap, lease))
    assert renewed + lease - (gap_begins + longest) >= quarter
