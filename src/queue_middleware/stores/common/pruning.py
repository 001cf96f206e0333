"""Runs retention step by step: each step continues after the last one and adapts to the space on the disk."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from queue_middleware.errors import DiskFull

from . import retention
from .bounds import MAX_WEIGHT
from .transaction import Queries

_SHRINK_FACTOR = 16


class Pruning:
    """The retention of one store. `write` and `read` are those of the store; `retention` is in milliseconds.

    `trusted_now` returns, for this retention, the time of `WallClock` in milliseconds since 1970.
    """

    def __init__(
        self,
        write: Callable[..., Awaitable[Any]],
        read: Callable[[Callable[[Queries], Any]], Awaitable[Any]],
        trusted_now: Callable[[int], int],
        retention: int,
    ) -> None:
        self._write = write
        self._read = read
        self._trusted_now = trusted_now
        self._retention = retention
        self._after = 0
        self._weight = MAX_WEIGHT

    async def step(self, limit: int) -> int:
        """Run one transaction. Returns how many jobs and responses it deleted, or deleted in part. Raises `DiskFull`."""
        now = self._trusted_now(self._retention)
        while True:
            found: retention.PrunableRows = await self._read(
                lambda queries: retention.find_prunable(queries, now, self._retention, self._after, limit)
            )
            if not found:
                self._after = 0
                return 0
            try:
                size = min(found.weight, self._weight)
                pruned: retention.Pruned = await self._write(retention.prune, found.replace(max_weight=self._weight), size)
            except DiskFull:
                if self._weight == 1:
                    raise
                # Deleting needs space in the write-ahead log, too: at least a few pages.
                self._weight = max(1, self._weight // _SHRINK_FACTOR)
                continue
            self._weight = min(MAX_WEIGHT, self._weight * 2)
            # The next step skips the jobs before this one that are kept, for instance because of a pending webhook.
            self._after = pruned.last if pruned.last is not None else self._after if found.jobs else 0
            return pruned.count
