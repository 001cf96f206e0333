"""Protects retention from a wrong system clock. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

CLOCK_TOLERANCE = 60_000
"""Milliseconds by which a stored time may be ahead of the clock without being wrong: clocks are often set back a little."""
_MAX_DISTRUST = 86_400_000
"""Milliseconds for which retention does not trust a clock that was set forward; the retention itself if that is shorter."""


@dataclass(frozen=True, slots=True)
class WallClock:
    """The time that retention trusts. All values are in milliseconds.

    The wall clock is compared with the boot clock. If it is set back, it is trusted at once, because less is deleted then.
    If it is set forward by more than `CLOCK_TOLERANCE`, it is trusted after a day: either it was behind before, and jobs that
    ended in that time look too old, or it is ahead for a short time, and all jobs look too old.
    """

    offset: int
    """Wall clock minus boot clock, when last read."""
    trusted: int
    """The offset that is trusted."""
    since: int
    """When `offset` last changed, on the boot clock."""

    @classmethod
    def begin(cls, wall: int, boot: int) -> Self:
        """The state at the start of a process, which trusts the wall clock."""
        return cls(wall - boot, wall - boot, boot)

    def update(self, wall: int, boot: int, retention: int) -> Self:
        """The state after both clocks were read."""
        offset = wall - boot
        since = boot if abs(offset - self.offset) > CLOCK_TOLERANCE else self.since
        is_trusted = offset - self.trusted <= CLOCK_TOLERANCE or boot - since >= min(_MAX_DISTRUST, retention)
        return replace(self, offset=offset, since=since, trusted=offset if is_trusted else self.trusted)

    def now(self, boot: int) -> int:
        """The trusted time since 1970."""
        return self.trusted + boot
