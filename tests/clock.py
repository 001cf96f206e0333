"""Clocks that stand still until a test moves them."""

from __future__ import annotations


class ManualClock:
    """Milliseconds, as a store counts them; `seconds` for those who do not."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now

    def seconds(self) -> float:
        return self.now / 1000

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


class Seconds:
    """Seconds, from whenever a test says."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
