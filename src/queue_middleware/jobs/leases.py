"""When a claim is taken from its holder: the lease rule that every store follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self


class Holder(StrEnum):
    """The holder of a claim, as far as the checking process knows."""

    ITSELF = "itself"
    """The checking process itself, which still works on the claim."""
    EXITED = "exited"
    """A process that has certainly exited: the kernel released its liveness lock, or it belongs to an earlier boot."""
    OTHER = "other"
    """Another process, or the checking process if it no longer knows the claim."""


IS_LOST: dict[tuple[Holder, bool, bool], bool] = {
    # (holder, is the lease over?, has the database been available long enough?)
    **{(Holder.ITSELF, over, calm): False for over in (False, True) for calm in (False, True)},
    **{(Holder.EXITED, over, calm): True for over in (False, True) for calm in (False, True)},
    (Holder.OTHER, False, False): False,
    (Holder.OTHER, False, True): False,
    (Holder.OTHER, True, False): False,
    (Holder.OTHER, True, True): True,
}
"""Whether a claim (of an attempt, a delivery or a poll) is taken from its holder. Every store follows these rules:

1. A process renews its own leases before it checks any, in the same transaction.
2. A process never takes what it still works on. A claim that it has lost track of is treated like that of another process.
3. A process checks leases only if the database has been available to it for a whole lease (`DatabaseUptime`). In an outage no
   process can renew its leases, so an expired lease does not show that its holder is dead.
4. If the holder has certainly exited, its claims are taken at once, whatever the lease and the uptime.
5. Leases are measured on the boot clock, so setting the wall clock does not end any.
"""


@dataclass(frozen=True, slots=True)
class DatabaseUptime:
    """Since when the database has been available to a process without a gap. Milliseconds on the boot clock.

    A process commits every quarter of a lease, even if it has nothing to renew. A longer gap means that the database was not
    available (locked, full, unreadable) or that the process did not run (stopped, suspended, just started). Other processes may
    have been unable to renew their leases then, so no lease is checked for one whole lease after a gap.
    """

    at: int
    """The time of the last commit."""
    stable_from: int

    @classmethod
    def begin(cls, now: int, lease: int) -> Self:
        """The value at the start of a process."""
        return cls(now, now + lease)

    def after_commit(self, now: int, lease: int) -> Self:
        """The value after a commit."""
        return replace(self, at=now, stable_from=now + lease if self._is_late(now, lease) else self.stable_from)

    def is_stable(self, now: int, lease: int) -> bool:
        """Whether leases may be checked."""
        return now >= self.stable_from and not self._is_late(now, lease)

    def _is_late(self, now: int, lease: int) -> bool:
        # Half a lease: a process that renewed a quarter of a lease before the gap has a quarter left to renew after it.
        return now - self.at > lease // 2
