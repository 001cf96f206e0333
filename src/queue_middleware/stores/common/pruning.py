"""Runs retention step by step: remembers where to look next, and adapts how much one transaction deletes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from queue_middleware.errors import DiskFull

from . import retention
from .bounds import MAX_WEIGHT
from .transaction import Queries

_SHRINK_FACTOR = 16


class Pruning:
    """Of one store. `write` and `read` are the store's; `kept`: milliseconds to keep results.

    `believed` gives, for this retention, the milliseconds since 1970 that are to be believed in: see `WallClock`.
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
        """One transaction; how many jobs and answers it has deleted, or begun to delete. Raises `DiskFull`."""
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
                # To delete takes room too, in the write-ahead log: a few pages for the least that can be deleted.
                self._weight = max(1, self._weight // _SHRINK_FACTOR)
                continue
            self._weight = min(MAX_WEIGHT, self._weight * 2)
            # The next step need not pass again by all those that are kept, for instance because they wait.
            self._after = pruned.last if pruned.last is not None else self._after if found.jobs else 0
            return pruned.count
