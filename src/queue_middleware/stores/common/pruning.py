"""Runs retention step by step: remembers where to look next, and adapts how much one transaction deletes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from queue_middleware.errors import DiskFull

from . import retention
from .bounds import WEIGHT
from .transaction import Queries

_LESS = 16


class Pruning:
    """Of one store. `write` and `read` are the store's; `kept`: milliseconds to keep results.

    `believed` gives, for this retention, the milliseconds since 1970 that are to be believed in: see `WallClock`.
    """

    def __init__(
        self,
        write: Callable[..., Awaitable[Any]],
        read: Callable[[Callable[[Queries], Any]], Awaitable[Any]],
        believed: Callable[[int], int],
        kept: int,
    ) -> None:
        self._write = write
        self._read = read
        self._believed = believed
        self._kept = kept
        self._behind = 0
        self._weight = WEIGHT

    async def step(self, limit: int) -> int:
        """One transaction; how many jobs and answers it has deleted, or begun to delete. Raises `DiskFull`."""
        now = self._believed(self._kept)
        while True:
            found: retention.ExpiredRows = await self._read(
                lambda queries: retention.outlived(queries, now, self._kept, self._behind, limit)
            )
            if not found:
                self._behind = 0
                return 0
            try:
                size = min(found.weight, self._weight)
                pruned: retention.Pruned = await self._write(retention.prune, found.replace(most=self._weight), size)
            except DiskFull:
                if self._weight == 1:
                    raise
                # To delete takes room too, in the write-ahead log: a few pages for the least that can be deleted.
                self._weight = max(1, self._weight // _LESS)
                continue
            self._weight = min(WEIGHT, self._weight * 2)
            # The next step need not pass again by all those that are kept, for instance because they wait.
            self._behind = pruned.last if pruned.last is not None else self._behind if found.jobs else 0
            return pruned.count
