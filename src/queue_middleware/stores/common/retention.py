"""Finds expired data on a reading connection, and deletes it in bounded transactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_middleware.jobs.ids import SEQUENCE_BITS
from queue_middleware.jobs.models import CHUNK_SIZE
from queue_middleware.jobs.outcomes import LARGE_RESPONSE_BYTES, LARGE_UNSTORED_RESPONSE_TTL_MS, UNSTORED_RESPONSE_TTL_MS
from queue_middleware.jobs.struct import Struct

from .bounds import ROW, WEIGHT, Budget
from .transaction import Queries, Transaction
from .wall_clock import AHEAD

_TOGETHER = 64
"""Small jobs that are deleted with one statement; then the clock is looked at."""
_LIGHT = 2**20
"""A job that is heavier is deleted in bites."""
_BITES = (
    ("delete_some_response_chunks", 4, CHUNK_SIZE),
    ("delete_some_request_chunks", 4, CHUNK_SIZE),
    ("delete_some_log_lines", 4, CHUNK_SIZE),
)
"""Statement, rows that it deletes at most, and how heavy one of them may be."""
_NEWS = 64
"""Deliveries about what was before the end of a request, which are deleted with one statement."""


class ExpiredRows(Struct, frozen=True):
    """Finished jobs that are no longer kept, the oldest first, jobs whose answers are not stored, and receivers."""

    jobs: list[tuple[int, int]]
    """Key and weight, see `bounds`."""
    answers: list[tuple[int, int]]
    hosts: list[str]
    """Hosts that nothing went to for as long."""
    flows: list[str]
    """The same of flows."""
    ahead: list[int]
    """Keys of finished jobs whose end lies in the future, by a clock that was wrong. From now on they are as old as today."""
    most: int = WEIGHT
    """What the transaction that deletes them may delete at most."""

    @property
    def weight(self) -> int:
        """Of all of them."""
        return sum(weight for _, weight in (*self.jobs, *self.answers))

    def __bool__(self) -> bool:
        return bool(self.jobs or self.answers or self.hosts or self.flows or self.ahead)


class Pruned(Struct, frozen=True):
    """What one transaction has done."""

    count: int
    """Jobs and answers that were deleted, or deleted in part."""
    last: int | None
    """The last job of those found that needs no further look; None where there was none."""


def outlived(queries: Queries, now: int, retention: int, behind: int, limit: int) -> ExpiredRows:
    """At most so many of each kind; `retention` in milliseconds, jobs only with keys behind `behind`."""
    before = now - retention
    ahead = {"ahead": now + AHEAD << SEQUENCE_BITS, "latest": now + AHEAD, "before": before, "limit": limit}
    jobs = {"behind": behind, "first_kept": (before + 1) << SEQUENCE_BITS, "before": before, "limit": limit}
    answers = {
        "before": now - UNSTORED_RESPONSE_TTL_MS,
        "before_if_large": now - LARGE_UNSTORED_RESPONSE_TTL_MS,
        "large": LARGE_RESPONSE_BYTES,
        "limit": limit,
    }
    hosts = {"before": before, "latest": now + AHEAD, "limit": limit}
    found = _found(queries, "prunable_jobs", jobs)
    # The others are looked for when all of the usual ones are gone: then few rows are in the way.
    found += _found(queries, "prunable_jobs_ahead", ahead) if len(found) < limit else []
    return ExpiredRows(
        _weighed(queries, found[:limit]),
        _weighed(queries, _found(queries, "prunable_responses", answers)),
        _found(queries, "unused_receivers", hosts),
        _found(queries, "unused_flows", hosts),
        _found(queries, "jobs_ended_ahead", {**ahead, **jobs}) if len(found) < limit else [],
    )


def _found(queries: Queries, name: str, parameters: dict[str, int]) -> list[Any]:
    return [row[0] for row in queries.all(name, parameters)]


def _weighed(queries: Queries, keys: list[int]) -> list[tuple[int, int]]:
    """With what each weighs, as far as one transaction can take it: no body is read for that."""
    weighed: list[tuple[int, int]] = []
    room = WEIGHT
    for key in keys:
        (row,) = queries.all("job_weight", {"key": key, "row": ROW, "part": ROW + CHUNK_SIZE})
        weight = row[0]
        weighed.append((key, weight))
        room -= weight
        if room <= 0:
            break
    return weighed


def prune(transaction: Transaction, batch: Sequence[ExpiredRows]) -> list[Pruned]:
    """Delete as much of them as their `most` allows, the oldest first, and a part of one that alone is heavier."""
    return [_prune(transaction, found, Budget(found.most)) for found in batch]


def _prune(transaction: Transaction, found: ExpiredRows, budget: Budget) -> Pruned:
    if found.hosts:
        transaction.change("delete_receivers", (found.hosts,))
    if found.flows:
        transaction.change("delete_flows", (found.flows,))
    if found.ahead:
        # By the clock itself: where retention does not believe it yet, what ends now has ended now all the same.
        latest = transaction.now + AHEAD
        transaction.change("reset_finished_at", {"now": transaction.now, "latest": latest, "keys": found.ahead})
    last, count = _prune_jobs(transaction, found.jobs, budget)
    if not budget.is_spent:
        count += _prune_responses(transaction, found.answers, budget)
    return Pruned(count, last)


def _prune_jobs(transaction: Transaction, found: list[tuple[int, int]], budget: Budget) -> tuple[int | None, int]:
    last: int | None = None
    count = 0
    for start in range(0, len(found), _TOGETHER):
        for some in _light_enough(found[start : start + _TOGETHER], budget):
            # Once more, and inside the transaction: a webhook that an operator has just asked for again needs its result.
            free = _not_needed(transaction, [key for key, _ in some])
            count += len(free)
            if len(some) == 1 and some[0][1] > min(_LIGHT, budget.left):
                if free and not _delete_in_bites(transaction, free[0], budget):
                    return last, count
            elif free:
                transaction.change("delete_jobs", (free,))
                budget.spend(sum(weight for _, weight in some))
            last = some[-1][0]
            if budget.is_spent:
                return last, count
    return last, count


def _light_enough(found: list[tuple[int, int]], budget: Budget) -> list[list[tuple[int, int]]]:
    """All together where they fit into the budget and none of them is heavy, otherwise one by one."""
    weights = [weight for _, weight in found]
    together = sum(weights) <= budget.left and max(weights) <= _LIGHT
    return [found] if together else [[one] for one in found]


def _not_needed(transaction: Transaction, keys: list[int]) -> list[int]:
    return [row[0] for row in transaction.all("still_prunable", (keys,))]


def _delete_in_bites(transaction: Transaction, key: int, budget: Budget) -> bool:
    """As much as the budget allows; whether all is gone. What was begun is found again, and cannot be asked for any more."""
    while transaction.change("delete_some_event_deliveries", {"key": key, "limit": _NEWS}):
        budget.spend(_NEWS * ROW)
        if budget.is_spent:
            return False
    # Result and webhook together: nothing that could still be delivered lacks its result.
    transaction.change("delete_payloads", ([key],))
    transaction.change("delete_deliveries", (key,))
    if not _drop_parts(transaction, key, budget):
        return False
    transaction.change("delete_jobs", ([key],))
    return True


def _drop_parts(transaction: Transaction, key: int, budget: Budget) -> bool:
    for name, most, weight in _BITES:
        limit = max(1, min(most, budget.left // weight))
        while dropped := transaction.change(name, {"key": key, "limit": limit}):
            budget.spend(dropped * weight)
            if budget.is_spent:
                return False
    return True


def _prune_responses(transaction: Transaction, found: list[tuple[int, int]], budget: Budget) -> int:
    count = 0
    for key in _not_needed(transaction, [key for key, _ in found]):
        count += 1
        # The row in `payload` is deleted last: it shows that the response is large, and so when it is due.
        if not _drop_parts(transaction, key, budget):
            break
        transaction.change("delete_payloads", ([key],))
        transaction.change("delete_unstored_responses", ([key],))
        budget.spend(2 * ROW)
        if budget.is_spent:
            break
    return count
