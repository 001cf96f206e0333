"""Clocks that a test moves."""

from __future__ import annotations


class ManualClock:
    """Wall clock in milliseconds, as stores use it, and in `seconds`; `boot` is the clock of leases."""

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
        """Let time pass: both clocks move."""
        self.now += round(seconds * 1000)
        self.since_boot += round(seconds * 1000)

    def set(self, seconds: float) -> None:
        """Set the wall clock forward or back; no time passes."""
        self.now += round(seconds * 1000)


class Seconds:
    """A clock in seconds."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
