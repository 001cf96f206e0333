"""Protects retention from a system clock that is set wrong. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

CLOCK_TOLERANCE = 60_000
"""Milliseconds by which a time may be ahead of the clock without being wrong: clocks are set back by so much every day."""
_MAX_DISTRUST = 86_400_000
"""Milliseconds for which a clock that was set forward is not believed by retention, or its own length where that is shorter."""


@dataclass(frozen=True, slots=True)
class WallClock:
    """What retention believes the time to be. All values in milliseconds.

    The wall clock is compared with the boot clock. Set back, it is believed at once: that deletes less. Set forward by more
    than `AHEAD`, it is believed when it has stayed so for a day: either it was behind, and what ended meanwhile is fresh
    although it looks old, or it is ahead for a moment, and everything looks old.
    """

    offset: int
    """Wall clock less boot clock, as last seen."""
    trusted: int
    since: int
    """On the boot clock: from when on `offset` has been as it is."""

    @classmethod
    def begin(cls, wall: int, boot: int) -> Self:
        """At the start of a process."""
        return cls(wall - boot, wall - boot, boot)

    def update(self, wall: int, boot: int, retention: int) -> Self:
        """What is known after a look at both clocks."""
        offset = wall - boot
        since = boot if abs(offset - self.offset) > CLOCK_TOLERANCE else self.since
        is_trusted = offset - self.trusted <= CLOCK_TOLERANCE or boot - since >= min(_MAX_DISTRUST, retention)
        return replace(self, offset=offset, since=since, trusted=offset if is_trusted else self.trusted)

    def now(self, boot: int) -> int:
        """The time since 1970 that is believed."""
        return self.trusted + boot
