"""Rate limit on failed lookups of ids, by client address. Successful lookups are not counted."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from queue_middleware.errors import RateLimited

MAX_FAILURES = 30
WINDOW = 60.0
_ADDRESSES = 10_000
"""Addresses that are counted; beyond that the oldest is forgotten. Ids have 256 bits, so they do not depend on this limit."""


class LookupLimiter:
    """Failed lookups of the last minute, by address, in this process; at most `most` of one address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MAX_FAILURES) -> None:
        self._clock = clock
        self._most = most
        self._failed: dict[str, deque[float]] = {}

    def count(self, address: str) -> None:
        """Count one failed lookup. Raises `RateLimited` above `most` in `WINDOW` seconds."""
        now = self._clock()
        times = self._failed.setdefault(address, deque(maxlen=self._most + 1))
        while times and times[0] <= now - WINDOW:
            times.popleft()
        times.append(now)
        if len(self._failed) > _ADDRESSES:
            del self._failed[next(iter(self._failed))]
        if len(times) > self._most:
            # The next lookup counts as well, so by then the second oldest has to be out of the window.
            raise RateLimited("Rate limit exceeded", max(1, math.ceil(times[1] + WINDOW - now)))
