"""Clocks that stand still until a test moves them."""

from __future__ import annotations


class ManualClock:
    """Milliseconds, as a store counts them; `seconds` for those who do not, `boot` for leases."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000
        self.since_boot = 5_000

    def __call__(self) -> int:
        return self.now

    def boot(self) -> int:
        return self.since_boot

    def seconds(self) -> float:
        return self.now / 1000

    def advance(self, seconds: float) -> None:
        """Time passes, on both clocks."""
        self.now += round(seconds * 1000)
        self.since_boot += round(seconds * 1000)

    def set(self, seconds: float) -> None:
        """The wall clock is set forward by so much, or back; no time passes."""
        self.now += round(seconds * 1000)


class Seconds:
    """Seconds, from whenever a test says."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
