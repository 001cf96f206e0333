"""Judging leases inside a transaction that the writer opened; `jobs.states.IS_LOST` is the rule."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from queue_middleware.jobs.struct import Struct

from .transaction import Transaction

RENEWALS = ("renew_jobs", "renew_deliveries", "renew_polls")


class LeaseClock(Protocol):
    """What a process knows of the time at which leases ended."""

    def ended_by(self, now: int) -> int:
        """Leases that ended at this moment or before it are over. `now` is on the clock that measures leases."""


class LostCriteria(Struct, frozen=True, gc=True):
    """What a judgement needs: owners that are certainly dead, tokens that the judge itself works on, and its pulse."""

    dead: list[str]
    running: Collection[int]
    leases: LeaseClock


def lost_parameters(transaction: Transaction, criteria: LostCriteria) -> dict[str, Any]:
    """Renew the judge's own, then the parameters of the statements that find what is lost."""
    own = {"owner": transaction.owner, "lease_until": transaction.lease_until, "tokens": list(criteria.running)}
    if criteria.running:
        for name in RENEWALS:
            transaction.change(name, own)
    ended_by = criteria.leases.ended_by(transaction.boot_time)
    return {"now": transaction.now, "ended_by": ended_by, "dead": criteria.dead}
