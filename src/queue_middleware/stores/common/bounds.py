"""Bounds what one transaction deletes, so that the operations behind it do not wait long.

The unit is a byte of stored data; a row weighs `ROW` beside its data, because of its indexes, its triggers and its page.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from queue_middleware.jobs.models import CHUNK_SIZE

ROW_WEIGHT = 4096
MAX_WEIGHT = 4 * 2**20
"""Of one transaction: some 500 small jobs, or 16 parts of a long answer."""
MAX_SECONDS = 0.025
"""After which a transaction that deletes begins with nothing more. A cold disk is a hundred times slower than a warm one."""


class Budget:
    """What one transaction may still delete. `clock` gives seconds."""

    def __init__(self, weight: int = MAX_WEIGHT, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = clock() + MAX_SECONDS
        self.left = weight

    def spend(self, weight: int) -> None:
        """So much was deleted."""
        self.left -= weight

    @property
    def is_spent(self) -> bool:
        """Whether to commit now."""
        return self.left <= 0 or self._clock() >= self._until


def within_bounds(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The first rows, at least one, whose payloads together are light enough. Their last column, how many parts, is cut off."""
    kept: list[tuple[Any, ...]] = []
    left = MAX_WEIGHT
    for *row, parts in rows:
        left -= ROW_WEIGHT + (parts or 0) * (ROW_WEIGHT + CHUNK_SIZE)
        if kept and left < 0:
            break
        kept.append(tuple(row))
    return kept
