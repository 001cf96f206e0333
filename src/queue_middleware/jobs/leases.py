"""When a claim is taken from its holder: the lease rule that every store follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self


class Holder(StrEnum):
    """Who holds a claim that is judged, as far as the judging process knows."""

    ITSELF = "itself"
    """The judging process, and it still works on it."""
    EXITED = "dead"
    """A process that is certainly dead: the kernel released its life sign, or it belongs to an earlier boot."""
    OTHER = "other"
    """Another process, or the judging process where it has forgotten the claim."""


IS_LOST: dict[tuple[Holder, bool, bool], bool] = {
    # (holder, is the lease over?, is the judge calm?)
    **{(Holder.ITSELF, over, calm): False for over in (False, True) for calm in (False, True)},
    **{(Holder.EXITED, over, calm): True for over in (False, True) for calm in (False, True)},
    (Holder.OTHER, False, False): False,
    (Holder.OTHER, False, True): False,
    (Holder.OTHER, True, False): False,
    (Holder.OTHER, True, True): True,
}
"""Whether a claim (an attempt, a delivery, a poll) is taken from its holder. The law of leases, for every store:

1. A process renews its own leases before it judges any, in the same transaction.
2. It never takes what it still works on itself. A claim that it has forgotten, by whatever defect, is judged like another's.
3. It judges a lease only when it is calm: the database has been there for a whole lease, as seen by this process (`Pulse`).
   In an outage no process can renew, so an outage is no sign of death.
4. Death that is certain is judged at once. It needs no lease and no calm.
5. Leases are measured on the boot clock, so that setting the wall clock ends none.
"""


@dataclass(frozen=True, slots=True)
class DatabaseUptime:
    """How long a process has had the database before it without a gap. All values are milliseconds on the boot clock.

    A process commits something every quarter of a lease, also when it has nothing to renew. A longer gap means that the
    database was away (locked, full, unreadable), or that the process was (stopped, suspended, just started): others may have
    been unable to renew, so for one whole lease after it no lease is judged.
    """

    at: int
    """Of the last commit."""
    stable_from: int

    @classmethod
    def begin(cls, now: int, lease: int) -> Self:
        """At the start of a process."""
        return cls(now, now + lease)

    def after_commit(self, now: int, lease: int) -> Self:
        """After a commit."""
        return replace(self, at=now, stable_from=now + lease if self._is_late(now, lease) else self.stable_from)

    def is_stable(self, now: int, lease: int) -> bool:
        """Whether leases may be judged."""
        return now >= self.stable_from and not self._is_late(now, lease)

    def _is_late(self, now: int, lease: int) -> bool:
        # Half a lease. Who renewed a quarter of a lease before the gap still has a quarter in which to renew after it.
        return now - self.at > lease // 2
