"""Let leases expire: a store ends no lease until the database has been available for a whole lease."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from queue_middleware.jobs.store import JobStore

from .clock import ManualClock

_HEARTBEATS = 4


async def lease_passes(store: JobStore, clock: ManualClock, seconds: float = 60.0, renewed: Collection[int] = ()) -> None:
    """Let a lease pass while the store renews as the heartbeat does; only the given tokens are renewed."""
    for _ in range(_HEARTBEATS):
        clock.advance(seconds / _HEARTBEATS)
        await asyncio.to_thread(store.renew, renewed)
