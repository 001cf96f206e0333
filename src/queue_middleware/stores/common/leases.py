"""Judging leases inside a transaction that the writer opened; `jobs.leases.IS_LOST` is the rule."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Protocol

from queue_middleware.jobs.struct import Struct

from .transaction import Transaction

RENEWALS = ("renew_jobs", "renew_deliveries", "renew_polls")


class LeaseClock(Protocol):
    """What a process knows of the time at which leases ended."""

    def ended_by(self, now: int) -> int:
        """Leases that ended at this moment or before it are over. `now` is on the clock that measures leases."""


class Lost(Struct, frozen=True, gc=True):
    """What a check needs: owners that are certainly dead, tokens of the checking process itself, and its lease clock."""

    dead: list[str]
    running: Collection[int]
    leases: LeaseClock


def lost_claims(transaction: Transaction, judged: Lost) -> dict[str, int | str]:
    """Renew the claims of this process; return the parameters of the statements that find lost claims."""
    own = {"owner": transaction.owner, "lease_until": transaction.lease_until, "tokens": json.dumps(list(judged.running))}
    if judged.running:
        for name in RENEWALS:
            transaction.change(name, own)
    ended_by = judged.leases.ended_by(transaction.boot_time)
    return {"now": transaction.now, "ended_by": ended_by, "dead": json.dumps(judged.dead)}
