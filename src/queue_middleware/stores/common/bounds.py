"""Limits how much one transaction deletes, so that the next transaction does not wait long.

Weight is counted in bytes of stored data; each row adds `ROW_WEIGHT` for its indexes, triggers and page.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from queue_middleware.jobs.models import CHUNK_SIZE

ROW_WEIGHT = 4096
MAX_WEIGHT = 4 * 2**20
"""Of one transaction: some 500 small jobs, or 16 chunks of a long response."""
MAX_SECONDS = 0.025
"""After this time a transaction deletes nothing more: a disk whose pages are not cached is a hundred times slower."""


class Budget:
    """How much one transaction may still delete. `clock` returns seconds."""

    def __init__(self, weight: int = MAX_WEIGHT, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = clock() + MAX_SECONDS
        self.left = weight

    def spend(self, weight: int) -> None:
        """Subtract the weight of deleted rows."""
        self.left -= weight

    @property
    def is_spent(self) -> bool:
        """Whether nothing more may be deleted, so that the transaction should commit."""
        return self.left <= 0 or self._clock() >= self._until


def within_bounds(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The first rows, at least one, whose payloads together weigh at most `MAX_WEIGHT`.

    The last column of each row is its number of chunks, which need not be whole; the returned rows do not have it.
    """
    kept: list[tuple[Any, ...]] = []
    left = MAX_WEIGHT
    for *row, chunks in rows:
        left -= ROW_WEIGHT + (chunks or 0) * (ROW_WEIGHT + CHUNK_SIZE)
        if kept and left < 0:
            break
        kept.append(tuple(row))
    return kept
