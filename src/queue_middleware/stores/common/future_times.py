"""Corrects due times far in the future, which were stored while the system clock was wrong.

They are found on a reading connection and corrected in a write transaction.
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
"""Milliseconds. The queue never pauses for longer, so a later due time was stored while the clock was wrong."""
_LIMIT = 500


class FutureTimes(Struct, frozen=True):
    """What is due too far in the future, except jobs whose start time was set by their submitters."""

    far: int
    """Milliseconds since 1970."""
    hosts: list[str]
    """Hosts with a webhook that is due, or a circuit that is open, until after `far`."""
    jobs: list[int]
    """Keys of jobs whose next attempt is due after `far`."""
    tasks: list[int]
    """Keys of tasks whose wait began in the future, or whose next poll is due after their wait has ended."""

    @property
    def found_any(self) -> bool:
        """Whether there is anything to correct."""
        return bool(self.hosts or self.jobs or self.tasks)


def find_future_times(queries: Queries, now: int, schedule: Sequence[float]) -> FutureTimes:
    """Find up to `_LIMIT` rows of each kind. `schedule`: the pauses between delivery attempts, in seconds."""
    longest = round(max(schedule, default=0.0) * 1200)
    parameters = {"far": now + _LONGEST_PAUSE + longest, "latest": now + CLOCK_TOLERANCE, "limit": _LIMIT}
    return FutureTimes(
        parameters["far"],
        _found(queries, "far_hosts", parameters),
        _found(queries, "far_delayed_jobs", parameters),
        _found(queries, "far_waits", parameters),
    )


def _found(queries: Queries, name: str, parameters: dict[str, int]) -> list[Any]:
    return [row[0] for row in queries.all(name, parameters)]


def correct(transaction: Transaction, batch: Sequence[FutureTimes]) -> list[None]:
    """Make deliveries, jobs and polls due now, and start the waits of tasks anew."""
    for found in batch:
        parameters: dict[str, Any] = {
            "now": transaction.now,
            "far": found.far,
            "keys": found.jobs,
            "latest": transaction.now + CLOCK_TOLERANCE,
        }
        if found.jobs and transaction.change("reset_far_delayed_jobs", parameters):
            transaction.counters.invalidate()
            transaction.topics.add(Topic.WORK)
        if found.tasks:
            parameters["keys"] = found.tasks
            transaction.change("reset_far_waits", parameters)
            transaction.change("reset_far_polls", parameters)
            transaction.topics.add(Topic.POLL)
        if found.hosts:
            parameters["hosts"] = found.hosts
            for name in ("reset_far_deliveries", "reset_far_flows", "reset_far_hosts"):
                transaction.change(name, parameters)
            flows = [flow for (flow,) in transaction.all("flows_of_hosts", parameters)]
            schedule_next(transaction, [], flows, found.hosts)
            transaction.topics.add(Topic.DELIVERY)
    return [None] * len(batch)
