"""How time passes for leases: a store judges none before the database has been there for a whole lease."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from queue_middleware.jobs.store import JobStore

from .clock import ManualClock

_BEATS = 4


async def lease_passes(store: JobStore, clock: ManualClock, seconds: float = 60.0, renewed: Collection[int] = ()) -> None:
    """A lease, through which the store beats as a heartbeat makes it; only these tokens are renewed."""
    for _ in range(_BEATS):
        clock.advance(seconds / _BEATS)
        await asyncio.to_thread(store.renew, renewed)
