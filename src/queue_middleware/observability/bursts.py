"""Outages: consecutive errors of one service, of which only few are reported."""

from __future__ import annotations

from collections.abc import Callable

from queue_middleware.events import Recovered, ServiceError

_FIRST_PAUSE = 10.0
_MAX_PAUSE = 600.0
"""Seconds between two lines about errors that continue."""
_QUIET = 60.0
"""Seconds without an error after which the next one is reported in full again, even if no recovery was reported."""


class Burst:
    """Consecutive errors of one service. `first` and `last` are when the first and the last one happened, in seconds."""

    def __init__(self, now: float) -> None:
        self.first = self.last = now
        self.total = 0
        self._unlogged = 0
        self._pause = _FIRST_PAUSE
        self._next = now + self._pause
        self._kinds: set[type] = set()

    def is_new(self, error: BaseException) -> bool:
        """Count the error; whether it is the first of its class."""
        self.total += 1
        if type(error) in self._kinds:
            self._unlogged += 1
            return False
        self._kinds.add(type(error))
        return True

    def take_unlogged(self) -> int:
        """The number of errors since the last line if another line is due, otherwise 0. The interval doubles each time."""
        if self.last < self._next:
            return 0
        self._pause = min(self._pause * 2, _MAX_PAUSE)
        self._next = self.last + self._pause
        unlogged, self._unlogged = self._unlogged, 0
        return unlogged


class Bursts:
    """The present burst of each service. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._bursts: dict[str, Burst] = {}

    def of(self, event: ServiceError) -> Burst:
        """The burst that this error continues or begins."""
        now = self._clock()
        burst = self._bursts.get(event.where)
        if burst is None or now - burst.last > _QUIET + event.retry_in:
            burst = self._bursts[event.where] = Burst(now)
        burst.last = now
        return burst

    def end(self, event: Recovered) -> Burst | None:
        """End the burst of a service that works again; None if there was none."""
        return self._bursts.pop(event.where, None)
