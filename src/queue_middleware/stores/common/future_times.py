"""Repairs times that a clock far ahead has stored, and that would not come for years.

They are found on a reading connection and corrected inside a transaction that the writer opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_middleware.jobs.store import Topic
from queue_middleware.jobs.struct import Struct

from .receiver_health import schedule_next
from .transaction import Queries, Transaction
from .wall_clock import CLOCK_TOLERANCE

_LONGEST_PAUSE = 30 * 86_400_000
"""Milliseconds. No pause of ours is that long: what is due later was put off by a clock that was wrong."""
_LIMIT = 500


class FutureTimes(Struct, frozen=True):
    """What waits for a time that is too far ahead, but for jobs whose submitters have named that time."""

    far: int
    """Milliseconds since 1970."""
    hosts: list[str]
    """With a webhook due, or held, until after `far`."""
    jobs: list[int]
    """To be repeated after `far`."""
    tasks: list[int]
    """That wait, or whose next poll is due, as no task does."""

    @property
    def found_any(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.hosts or self.jobs or self.tasks)


def find_future_times(queries: Queries, now: int, schedule: Sequence[float]) -> FutureTimes:
    """At most some hundreds of each kind. `schedule`: the pauses between attempts to deliver, in seconds."""
    longest = round(max(schedule, default=0.0) * 1200)
    asked = {"far": now + _LONGEST_PAUSE + longest, "latest": now + CLOCK_TOLERANCE, "limit": _LIMIT}
    return FutureTimes(
        asked["far"],
        _found(queries, "far_hosts", asked),
        _found(queries, "far_delayed_jobs", asked),
        _found(queries, "far_waits", asked),
    )


def _found(queries: Queries, name: str, parameters: dict[str, int]) -> list[Any]:
    return [row[0] for row in queries.all(name, parameters)]


def correct(transaction: Transaction, batch: Sequence[FutureTimes]) -> list[None]:
    """Make due what would have been due by now; what waits has its whole time before it."""
    for found in batch:
        several: dict[str, Any] = {
            "now": transaction.now,
            "far": found.far,
            "keys": found.jobs,
            "latest": transaction.now + CLOCK_TOLERANCE,
        }
        if found.jobs and transaction.change("reset_far_delayed_jobs", several):
            transaction.backlog.invalidate()
            transaction.topics.add(Topic.WORK)
        if found.tasks:
            several["keys"] = found.tasks
            transaction.change("reset_far_waits", several)
            transaction.change("reset_far_polls", several)
            transaction.topics.add(Topic.POLL)
        if found.hosts:
            several["hosts"] = found.hosts
            for name in ("reset_far_deliveries", "reset_far_flows", "reset_far_hosts"):
                transaction.change(name, several)
            flows = [flow for (flow,) in transaction.all("flows_of_hosts", several)]
            schedule_next(transaction, [], flows, found.hosts)
            transaction.topics.add(Topic.DELIVERY)
    return [None] * len(batch)
