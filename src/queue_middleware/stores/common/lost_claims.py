"""Decides in a write transaction which claims are lost; the rule is the table `jobs.leases.IS_LOST`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from queue_middleware.jobs.struct import Struct

from .transaction import Transaction

RENEWALS = ("renew_jobs", "renew_deliveries", "renew_polls")


class LeaseClock(Protocol):
    """Decides from the time that a process has observed which leases have ended."""

    def ended_by(self, now: int) -> int:
        """Leases until this time or earlier have ended. `now` is on the clock that measures leases."""


class LostCriteria(Struct, frozen=True, gc=True):
    """What decides that a claim is lost: owners that are certainly dead, the tokens of this process, and its lease clock."""

    dead: list[str]
    running: Collection[int]
    leases: LeaseClock


def lost_parameters(transaction: Transaction, criteria: LostCriteria) -> dict[str, Any]:
    """Renew the leases of this process, then return the parameters of the statements that find lost claims."""
    own = {"owner": transaction.owner, "lease_until": transaction.lease_until, "tokens": list(criteria.running)}
    if criteria.running:
        for name in RENEWALS:
            transaction.change(name, own)
    ended_by = criteria.leases.ended_by(transaction.boot_time)
    return {"now": transaction.now, "ended_by": ended_by, "dead": criteria.dead}
