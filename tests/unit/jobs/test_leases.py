from itertools import product

import pytest

from queue_middleware.jobs.leases import IS_LOST, DatabaseUptime, Holder


def test_the_table_has_every_verdict_on_a_claim() -> None:
    assert set(IS_LOST) == set(product(Holder, (False, True), (False, True)))


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("stable", [False, True])
def test_a_process_never_rescues_its_own_claims_and_always_those_of_dead_processes(over: bool, stable: bool) -> None:
    assert not IS_LOST[Holder.ITSELF, over, stable]
    assert IS_LOST[Holder.EXITED, over, stable]
    assert IS_LOST[Holder.OTHER, over, stable] is (over and stable)


def test_the_database_is_stable_after_a_whole_lease_without_a_gap() -> None:
    uptime = DatabaseUptime.begin(1000, 60)
    for now in range(1015, 1060, 15):
        assert not uptime.is_stable(now, 60)
        uptime = uptime.after_commit(now, 60)
    uptime = uptime.after_commit(1060, 60)
    assert uptime.is_stable(1060, 60)
    assert uptime.is_stable(1090, 60), "as late as a heartbeat may be"


@pytest.mark.parametrize("gap", [31, 60, 10**9])
def test_the_database_is_unstable_for_a_whole_lease_after_a_gap(gap: int) -> None:
    uptime = DatabaseUptime(at=1000, stable_from=0)
    back = 1000 + gap
    assert not uptime.is_stable(back, 60)
    uptime = uptime.after_commit(back, 60)
    assert uptime.stable_from == back + 60
    assert not uptime.is_stable(back, 60)


def test_a_claim_renewed_before_a_tolerated_gap_has_not_expired_after_it() -> None:
    """The longest tolerated gap, started just before a renewal was due, leaves a quarter of the lease."""
    lease, quarter = 60, 15
    renewed = 1000
    gap_begins = renewed + quarter
    uptime = DatabaseUptime(at=gap_begins, stable_from=0)
    longest = max(gap for gap in range(lease) if uptime.is_stable(gap_begins + gap, lease))
    assert renewed + lease - (gap_begins + longest) >= quarter
