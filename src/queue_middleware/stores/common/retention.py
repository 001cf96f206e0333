"""Finds expired data on a reading connection, and deletes it in bounded transactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_middleware.jobs.ids import SEQUENCE_BITS
from queue_middleware.jobs.models import CHUNK_SIZE
from queue_middleware.jobs.outcomes import LARGE_RESPONSE_BYTES, LARGE_UNSTORED_RESPONSE_TTL_MS, UNSTORED_RESPONSE_TTL_MS
from queue_middleware.jobs.struct import Struct

from .bounds import MAX_WEIGHT, ROW_WEIGHT, Budget
from .transaction import Queries, Transaction
from .wall_clock import CLOCK_TOLERANCE

_JOBS_PER_STATEMENT = 64
"""Small jobs that are deleted with one statement; then the clock is looked at."""
_LIGHT_JOB = 2**20
"""A job that is heavier is deleted in bites."""
_CHUNK_DELETES = (
    ("delete_some_response_chunks", 4, CHUNK_SIZE),
    ("delete_some_request_chunks", 4, CHUNK_SIZE),
    ("delete_some_log_lines", 4, CHUNK_SIZE),
)
"""Statement, rows that it deletes at most, and how heavy one of them may be."""
_DELIVERIES_PER_STATEMENT = 64
"""Deliveries about what was before the end of a request, which are deleted with one statement."""


class PrunableRows(Struct, frozen=True):
    """Finished jobs that are no longer kept, the oldest first, jobs whose answers are not stored, and receivers."""

    jobs: list[tuple[int, int]]
    """Key and weight, see `bounds`."""
    responses: list[tuple[int, int]]
    hosts: list[str]
    """Hosts that nothing went to for as long."""
    flows: list[str]
    """The same of flows."""
    ended_ahead: list[int]
    """Keys of finished jobs whose end lies in the future, by a clock that was wrong. From now on they are as old as today."""
    max_weight: int = MAX_WEIGHT
    """What the transaction that deletes them may delete at most."""

    @property
    def weight(self) -> int:
        """Of all of them."""
        return sum(weight for _, weight in (*self.jobs, *self.responses))

    def __bool__(self) -> bool:
        return bool(self.jobs or self.responses or self.hosts or self.flows or self.ended_ahead)


class Pruned(Struct, frozen=True):
    """What one transaction has done."""

    count: int
    """Jobs and answers that were deleted, or deleted in part."""
    last: int | None
    """The last job of those found that needs no further look; None where there was none."""


def find_prunable(queries: Queries, now: int, retention: int, after: int, limit: int) -> PrunableRows:
    """At most so many of each kind; `retention` in milliseconds, jobs only with keys behind `behind`."""
    before = now - retention
    ahead = {"ahead": now + CLOCK_TOLERANCE << SEQUENCE_BITS, "latest": now + CLOCK_TOLERANCE, "before": before, "limit": limit}
    jobs = {"behind": after, "first_kept": (before + 1) << SEQUENCE_BITS, "before": before, "limit": limit}
    answers = {
        "before": now - UNSTORED_RESPONSE_TTL_MS,
        "before_if_large": now - LARGE_UNSTORED_RESPONSE_TTL_MS,
        "large": LARGE_RESPONSE_BYTES,
        "limit": limit,
    }
    hosts = {"before": before, "latest": now + CLOCK_TOLERANCE, "limit": limit}
    found = _found(queries, "prunable_jobs", jobs)
    # The others are looked for when all of the usual ones are gone: then few rows are in the way.
    found += _found(queries, "prunable_jobs_ahead", ahead) if len(found) < limit else []
    return PrunableRows(
        _with_weights(queries, found[:limit]),
        _with_weights(queries, _found(queries, "prunable_responses", answers)),
        _found(queries, "unused_receivers", hosts),
        _found(queries, "unused_flows", hosts),
        _found(queries, "jobs_ended_ahead", {**ahead, **jobs}) if len(found) < limit else [],
    )


def _found(queries: Queries, name: str, parameters: dict[str, int]) -> list[Any]:
    return [row[0] for row in queries.all(name, parameters)]


def _with_weights(queries: Queries, keys: list[int]) -> list[tuple[int, int]]:
    """With what each weighs, as far as one transaction can take it: no body is read for that."""
    weighed: list[tuple[int, int]] = []
    room = MAX_WEIGHT
    for key in keys:
        (row,) = queries.all("job_weight", {"key": key, "row": ROW_WEIGHT, "part": ROW_WEIGHT + CHUNK_SIZE})
        weight = row[0]
        weighed.append((key, weight))
        room -= weight
        if room <= 0:
            break
    return weighed


def prune(transaction: Transaction, batch: Sequence[PrunableRows]) -> list[Pruned]:
    """Delete as much of them as their `most` allows, the oldest first, and a part of one that alone is heavier."""
    return [_prune(transaction, found, Budget(found.max_weight)) for found in batch]


def _prune(transaction: Transaction, found: PrunableRows, budget: Budget) -> Pruned:
    if found.hosts:
        transaction.change("delete_receivers", (found.hosts,))
    if found.flows:
        transaction.change("delete_flows", (found.flows,))
    if found.ended_ahead:
        # By the clock itself: where retention does not believe it yet, what ends now has ended now all the same.
        latest = transaction.now + CLOCK_TOLERANCE
        transaction.change("reset_finished_at", {"now": transaction.now, "latest": latest, "keys": found.ended_ahead})
    last, count = _prune_jobs(transaction, found.jobs, budget)
    if not budget.is_spent:
        count += _prune_responses(transaction, found.responses, budget)
    return Pruned(count, last)


def _prune_jobs(transaction: Transaction, found: list[tuple[int, int]], budget: Budget) -> tuple[int | None, int]:
    last: int | None = None
    count = 0
    for start in range(0, len(found), _JOBS_PER_STATEMENT):
        for some in _groups(found[start : start + _JOBS_PER_STATEMENT], budget):
            # Once more, and inside the transaction: a webhook that an operator has just asked for again needs its result.
            free = _still_prunable(transaction, [key for key, _ in some])
            count += len(free)
            if len(some) == 1 and some[0][1] > min(_LIGHT_JOB, budget.left):
                if free and not _delete_stepwise(transaction, free[0], budget):
                    return last, count
            elif free:
                transaction.change("delete_jobs", (free,))
                budget.spend(sum(weight for _, weight in some))
            last = some[-1][0]
            if budget.is_spent:
                return last, count
    return last, count


def _groups(found: list[tuple[int, int]], budget: Budget) -> list[list[tuple[int, int]]]:
    """All together where they fit into the budget and none of them is heavy, otherwise one by one."""
    weights = [weight for _, weight in found]
    together = sum(weights) <= budget.left and max(weights) <= _LIGHT_JOB
    return [found] if together else [[one] for one in found]


def _still_prunable(transaction: Transaction, keys: list[int]) -> list[int]:
    return [row[0] for row in transaction.all("still_prunable", (keys,))]


def _delete_stepwise(transaction: Transaction, key: int, budget: Budget) -> bool:
    """As much as the budget allows; whether all is gone. What was begun is found again, and cannot be asked for any more."""
    while transaction.change("delete_some_event_deliveries", {"key": key, "limit": _DELIVERIES_PER_STATEMENT}):
        budget.spend(_DELIVERIES_PER_STATEMENT * ROW_WEIGHT)
        if budget.is_spent:
            return False
    # Result and webhook together: nothing that could still be delivered lacks its result.
    transaction.change("delete_payloads", ([key],))
    transaction.change("delete_deliveries", (key,))
    if not _delete_chunks(transaction, key, budget):
        return False
    transaction.change("delete_jobs", ([key],))
    return True


def _delete_chunks(transaction: Transaction, key: int, budget: Budget) -> bool:
    for name, most, weight in _CHUNK_DELETES:
        limit = max(1, min(most, budget.left // weight))
        while dropped := transaction.change(name, {"key": key, "limit": limit}):
            budget.spend(dropped * weight)
            if budget.is_spent:
                return False
    return True


def _prune_responses(transaction: Transaction, found: list[tuple[int, int]], budget: Budget) -> int:
    count = 0
    for key in _still_prunable(transaction, [key for key, _ in found]):
        count += 1
        # The row in `payload` is deleted last: it shows that the response is large, and so when it is due.
        if not _delete_chunks(transaction, key, budget):
            break
        transaction.change("delete_payloads", ([key],))
        transaction.change("delete_unstored_responses", ([key],))
        budget.spend(2 * ROW_WEIGHT)
        if budget.is_spent:
            break
    return count
