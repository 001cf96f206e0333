"""When a provider is polled next, and how concurrent polls are shared between hosts. Pure.

A poll occupies capacity until its response has arrived, and some providers are slow. One host therefore gets only a part of the
capacity, and all hosts that are not known to respond promptly together leave a part to those that do.
"""

from __future__ import annotations

import math
from collections import Counter

from queue_middleware.backoff import retry_after
from queue_middleware.jobs.models import Headers
from queue_middleware.tasks.models import PollCapacity
from queue_middleware.webhooks.circuit import PROMPT_SECONDS
from queue_middleware.webhooks.fairness import UNPROVEN_SHARE

MIN_RETRY_AFTER = 1.0
"""Seconds: the shortest wait that `Retry-After` can ask for."""
MAX_RETRY_AFTER = 3600.0
"""Seconds: the longest wait that `Retry-After` can ask for."""
HOST_SHARE = 0.5
"""Share of the capacity that one host may take."""
_MAX_RETRY_DELAY = 60.0
_FIRST_RETRY_DELAY = 5.0
_MAX_REMEMBERED_HOSTS = 1000


def next_poll_delay(interval: float, time_left: float, failures: int, headers: Headers, now: float) -> float | None:
    """Seconds until the next poll; None if this one was the last.

    `interval` is the configured time between two polls, `time_left` the time to the job's deadline, at which there is a last
    poll. After `failures` failed polls in a row the delay is the interval, but at most five seconds, doubled each time up to a
    minute. `Retry-After` in `headers` (RFC 9110 §10.2.3) takes precedence, from one second to one hour. `now` in Unix seconds.
    """
    if time_left <= 0:
        return None
    requested = retry_after(headers, now)
    if requested > 0:
        delay = min(max(requested, MIN_RETRY_AFTER), MAX_RETRY_AFTER)
    elif failures:
        delay = min(min(interval, _FIRST_RETRY_DELAY) * 2.0 ** min(failures - 1, 10), _MAX_RETRY_DELAY)
    else:
        delay = interval
    return min(delay, time_left)


def first_poll_delay(interval: float, time_left: float, headers: Headers, now: float, *, expects_call: bool) -> float:
    """Seconds from the target's response to the first poll; the other arguments are those of `next_poll_delay`.

    If a callback or a signal is expected (`expects_call`), there are polls only at half of the time and at its end, in case the
    callback was lost (docs/reference/protocols/asyncqueue.md, "Extensions", 7).
    """
    return time_left / 2 if expects_call else next_poll_delay(interval, time_left, 0, headers, now) or 0.0


class PollLimiter:
    """Tracks the polls that this process runs, at most `limit` at once, and the hosts that are known to respond promptly."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running: dict[int, tuple[str, bool]] = {}
        """By token: the host, and whether it was unproven when its poll began."""
        self._prompt: set[str] = set()

    def capacity(self) -> PollCapacity | None:
        """The capacity that is free; None if there is none."""
        if len(self._running) >= self._limit:
            return None
        unproven = sum(was_unproven for _, was_unproven in self._running.values())
        return PollCapacity(
            limit=self._limit - len(self._running),
            unproven=max(0, math.ceil(self._limit * UNPROVEN_SHARE) - unproven),
            per_host=math.ceil(self._limit * HOST_SHARE),
            busy=Counter(host for host, _ in self._running.values()),
            prompt=frozenset(self._prompt),
        )

    def begin(self, token: int, host: str) -> None:
        """Record that a poll began."""
        self._running[token] = host, host not in self._prompt

    def end(self, token: int) -> None:
        """Record that a poll was settled or given up. Idempotent."""
        self._running.pop(token, None)

    def record_duration(self, host: str, seconds: float) -> None:
        """Record how long a poll took, whatever its outcome."""
        if seconds > PROMPT_SECONDS:
            self._prompt.discard(host)
            return
        if len(self._prompt) >= _MAX_REMEMBERED_HOSTS:
            self._prompt.clear()
        self._prompt.add(host)


class HostSelector:
    """Chooses the due polls that begin now, in the order in which they are offered."""

    def __init__(self, capacity: PollCapacity) -> None:
        self._capacity = capacity
        self._busy = Counter(capacity.busy)
        self._unproven_left = capacity.unproven
        self.left = capacity.limit

    def take(self, host: str) -> bool:
        """Reserve capacity for one poll of this host; False if the host has to wait."""
        unproven = host not in self._capacity.prompt
        if not self.left or self._busy[host] >= self._capacity.per_host or (unproven and not self._unproven_left):
            return False
        self.left -= 1
        self._busy[host] += 1
        self._unproven_left -= unproven
        return True
