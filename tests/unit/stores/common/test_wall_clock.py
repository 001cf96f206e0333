"""Which time retention trusts when the system clock is set."""

from __future__ import annotations

import pytest

from queue_middleware.stores.common.wall_clock import CLOCK_TOLERANCE, WallClock

HOUR, DAY, YEAR = 3_600_000, 86_400_000, 365 * 86_400_000
NOW, WEEK = 1_800_000_000_000, 7 * DAY


def test_passing_time_is_trusted() -> None:
    clock = WallClock.begin(NOW, 0)
    for passed in range(0, WEEK, HOUR):
        clock = clock.update(NOW + passed, passed, WEEK)
        assert clock.now(passed) == NOW + passed


def test_a_clock_that_drifts_is_followed() -> None:
    clock = WallClock.begin(NOW, 0)
    for look in range(1, 100):
        clock = clock.update(NOW + look * (HOUR + CLOCK_TOLERANCE // 2), look * HOUR, WEEK)
    assert clock.now(99 * HOUR) == NOW + 99 * (HOUR + CLOCK_TOLERANCE // 2)


def test_a_clock_that_is_set_back_is_trusted_at_once() -> None:
    clock = WallClock.begin(NOW, 0).update(NOW - YEAR, 60_000, WEEK)
    assert clock.now(60_000) == NOW - YEAR


def test_a_clock_that_is_ahead_for_a_short_time_is_not_trusted() -> None:
    clock = WallClock.begin(NOW, 0)
    for boot in range(60_000, HOUR, 60_000):
        clock = clock.update(NOW + 10 * YEAR + boot, boot, WEEK)
        assert clock.now(boot) == NOW + boot
    clock = clock.update(NOW + HOUR, HOUR, WEEK)
    assert clock.now(HOUR) == NOW + HOUR


@pytest.mark.parametrize(("retention", "hold"), [(WEEK, DAY), (HOUR, HOUR)])
def test_a_clock_that_stays_ahead_is_trusted_after_a_day(retention: int, hold: int) -> None:
    """The clock was behind before: jobs that ended in that time look too old, and are kept until the clock is trusted."""
    clock = WallClock.begin(NOW - 10 * YEAR, 0).update(NOW + 60_000, 60_000, retention)
    for boot in (60_000, hold // 2, hold):
        clock = clock.update(NOW + boot, boot, retention)
        assert clock.now(boot) == NOW - 10 * YEAR + boot
    boot = hold + 60_000
    assert clock.update(NOW + boot, boot, retention).now(boot) == NOW + boot
