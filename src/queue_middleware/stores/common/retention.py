"""Finds data older than the retention on a reading connection, and deletes it in bounded transactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from queue_middleware.jobs.ids import SEQUENCE_BITS
from queue_middleware.jobs.models import CHUNK_SIZE
from queue_middleware.jobs.outcomes import LARGE_RESPONSE_BYTES, LARGE_UNSTORED_RESPONSE_TTL_MS, UNSTORED_RESPONSE_TTL_MS
from queue_middleware.jobs.struct import Struct

from .bounds import MAX_WEIGHT, ROW_WEIGHT, Budget
from .transaction import Queries, Transaction
from .wall_clock import CLOCK_TOLERANCE

_JOBS_PER_STATEMENT = 64
"""Small jobs that one statement deletes; the clock is read between two statements."""
_LIGHT_JOB = 2**20
"""Weight up to which a job or a kept request is deleted with others. A heavier one is deleted alone and in parts."""
_REQUEST_CHUNK_DELETES = (("delete_some_request_chunks", 4, CHUNK_SIZE),)
"""Statement, the most rows that it deletes at once, the largest weight of a row."""
_CHUNK_DELETES = (
    ("delete_some_response_chunks", 4, CHUNK_SIZE),
    *_REQUEST_CHUNK_DELETES,
    ("delete_some_log_lines", 4, CHUNK_SIZE),
)
_DELIVERIES_PER_STATEMENT = 64
"""Deliveries about events before the end of a request that one statement deletes."""


class PrunableRows(Struct, frozen=True):
    """Rows that retention may delete, and rows whose times it corrects."""

    jobs: list[tuple[int, int]]
    """Key and weight (`bounds`) of ended jobs, the oldest first."""
    responses: list[tuple[int, int]]
    """Key and weight of jobs whose response was not to be stored."""
    hosts: list[str]
    """Hosts that have received no webhook for the retention."""
    flows: list[str]
    """Flows that have had no webhook for the retention."""
    ended_ahead: list[int]
    """Keys of jobs that ended in the future, because the clock was wrong. Their end is set to the present."""
    max_weight: int = MAX_WEIGHT
    """The largest weight that the transaction deletes."""
    requests: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """Key and weight of jobs whose kept request has expired, the longest expired first."""
    now: int = 0
    """The time by which they have."""

    @property
    def weight(self) -> int:
        """The weight of all jobs, responses and requests."""
        return sum(weight for _, weight in (*self.jobs, *self.responses, *self.requests))

    def __bool__(self) -> bool:
        return bool(self.jobs or self.responses or self.requests or self.hosts or self.flows or self.ended_ahead)


class Pruned(Struct, frozen=True):
    """What one transaction has deleted."""

    count: int
    """Jobs, responses and requests that were deleted, or deleted in part."""
    last: int | None
    """The last job that the next step can skip; None if there is none."""


def find_prunable(queries: Queries, now: int, retention: int, after: int, limit: int) -> PrunableRows:
    """Find at most `limit` rows of each kind, and jobs only with keys above `after`. `retention` is in milliseconds."""
    before = now - retention
    ahead = {"ahead": now + CLOCK_TOLERANCE << SEQUENCE_BITS, "latest": now + CLOCK_TOLERANCE, "before": before, "limit": limit}
    jobs = {"after": after, "first_kept": (before + 1) << SEQUENCE_BITS, "before": before, "limit": limit}
    responses = {
        "before": now - UNSTORED_RESPONSE_TTL_MS,
        "before_if_large": now - LARGE_UNSTORED_RESPONSE_TTL_MS,
        "large": LARGE_RESPONSE_BYTES,
        "limit": limit,
    }
    hosts = {"before": before, "latest": now + CLOCK_TOLERANCE, "limit": limit}
    requests = {"now": now, "row": ROW_WEIGHT, "chunk": ROW_WEIGHT + CHUNK_SIZE, "limit": limit}
    found = _found(queries, "prunable_jobs", jobs)
    # Jobs with a wrong time are searched last, when few ended jobs are left to visit.
    found += _found(queries, "prunable_jobs_ahead", ahead) if len(found) < limit else []
    return PrunableRows(
        _with_weights(queries, found[:limit]),
        _with_weights(queries, _found(queries, "prunable_responses", responses)),
        _found(queries, "unused_receivers", hosts),
        _found(queries, "unused_flows", hosts),
        _found(queries, "jobs_ended_ahead", {**ahead, **jobs}) if len(found) < limit else [],
        requests=[(key, weight) for key, weight in queries.all("expired_requests", requests)],
        now=now,
    )


def _found(queries: Queries, name: str, parameters: dict[str, int]) -> list[Any]:
    return [row[0] for row in queries.all(name, parameters)]


def _with_weights(queries: Queries, keys: list[int]) -> list[tuple[int, int]]:
    """The first keys with their weights, up to the weight that one transaction deletes. No body is read."""
    weighed: list[tuple[int, int]] = []
    left = MAX_WEIGHT
    for key in keys:
        (row,) = queries.all("job_weight", {"key": key, "row": ROW_WEIGHT, "chunk": ROW_WEIGHT + CHUNK_SIZE})
        weight = row[0]
        weighed.append((key, weight))
        left -= weight
        if left <= 0:
            break
    return weighed


def prune(transaction: Transaction, batch: Sequence[PrunableRows]) -> list[Pruned]:
    """Delete rows up to their `max_weight`, the oldest jobs first. A single job that is heavier is deleted in part."""
    return [_prune(transaction, found, Budget(found.max_weight)) for found in batch]


def _prune(transaction: Transaction, found: PrunableRows, budget: Budget) -> Pruned:
    if found.hosts:
        transaction.change("delete_receivers", (found.hosts,))
    if found.flows:
        transaction.change("delete_flows", (found.flows,))
    if found.ended_ahead:
        # By the clock itself, even if retention does not trust it yet: jobs that end now are given the same time.
        latest = transaction.now + CLOCK_TOLERANCE
        transaction.change("reset_finished_at", {"now": transaction.now, "latest": latest, "keys": found.ended_ahead})
    last, count = _prune_jobs(transaction, found.jobs, budget)
    if not budget.is_spent:
        count += _prune_responses(transaction, found.responses, budget)
    if not budget.is_spent:
        count += _prune_requests(transaction, found, budget)
    return Pruned(count, last)


def _prune_jobs(transaction: Transaction, found: list[tuple[int, int]], budget: Budget) -> tuple[int | None, int]:
    last: int | None = None
    count = 0
    for start in range(0, len(found), _JOBS_PER_STATEMENT):
        for group in _groups(found[start : start + _JOBS_PER_STATEMENT], budget):
            # Checked again in this transaction: a webhook that an operator has just redelivered needs its result.
            prunable = _still_prunable(transaction, [key for key, _ in group])
            count += len(prunable)
            if len(group) == 1 and group[0][1] > min(_LIGHT_JOB, budget.left):
                if prunable and not _delete_stepwise(transaction, prunable[0], budget):
                    return last, count
            elif prunable:
                transaction.change("delete_jobs", (prunable,))
                budget.spend(sum(weight for _, weight in group))
            last = group[-1][0]
            if budget.is_spent:
                return last, count
    return last, count


def _groups(found: list[tuple[int, int]], budget: Budget) -> list[list[tuple[int, int]]]:
    """One group of all jobs if they fit into the budget and none is heavy, otherwise a group for each job."""
    weights = [weight for _, weight in found]
    together = sum(weights) <= budget.left and max(weights) <= _LIGHT_JOB
    return [found] if together else [[one] for one in found]


def _still_prunable(transaction: Transaction, keys: list[int]) -> list[int]:
    return [row[0] for row in transaction.all("still_prunable", (keys,))]


def _delete_stepwise(transaction: Transaction, key: int, budget: Budget) -> bool:
    """Delete as much of a job as the budget allows; True if all of it is deleted.

    The rest is found by the next step. Until then its result and its webhooks cannot be read any more.
    """
    while transaction.change("delete_some_event_deliveries", {"key": key, "limit": _DELIVERIES_PER_STATEMENT}):
        budget.spend(_DELIVERIES_PER_STATEMENT * ROW_WEIGHT)
        if budget.is_spent:
            return False
    # Result and webhooks are deleted together: a webhook that can still be redelivered must have its result.
    transaction.change("delete_payloads", ([key],))
    transaction.change("delete_deliveries", (key,))
    if not _delete_chunks(transaction, key, budget):
        return False
    transaction.change("delete_jobs", ([key],))
    return True


def _delete_chunks(
    transaction: Transaction, key: int, budget: Budget, deletes: Sequence[tuple[str, int, int]] = _CHUNK_DELETES
) -> bool:
    for name, max_rows, weight in deletes:
        limit = max(1, min(max_rows, budget.left // weight))
        while deleted := transaction.change(name, {"key": key, "limit": limit}):
            budget.spend(deleted * weight)
            if budget.is_spent:
                return False
    return True


def _prune_responses(transaction: Transaction, found: list[tuple[int, int]], budget: Budget) -> int:
    count = 0
    for key in _still_prunable(transaction, [key for key, _ in found]):
        count += 1
        # The row in `payload` is deleted last: it shows that the response is large, which decides when it is deleted.
        if not _delete_chunks(transaction, key, budget):
            break
        transaction.change("delete_payloads", ([key],))
        transaction.change("delete_unstored_responses", ([key],))
        budget.spend(2 * ROW_WEIGHT)
        if budget.is_spent:
            break
    return count


def _prune_requests(transaction: Transaction, found: PrunableRows, budget: Budget) -> int:
    count = 0
    for group in _light_groups(found.requests):
        # Checked again in this transaction: a job may have been deleted, and its key given to a new one.
        expired = transaction.all("still_expired_requests", {"keys": [key for key, _ in group], "now": found.now})
        keys = [row[0] for row in expired]
        count += len(keys)
        if keys and group[0][1] > _LIGHT_JOB and not _delete_chunks(transaction, keys[0], budget, _REQUEST_CHUNK_DELETES):
            break
        transaction.change("delete_chunks_of_requests", (keys,))
        transaction.change("delete_kept_requests", (keys,))
        budget.spend(min(sum(weight for _, weight in group), _LIGHT_JOB))
        if budget.is_spent:
            break
    return count


def _light_groups(found: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """The same rows in groups that are together not heavier than `_LIGHT_JOB`; a heavier one is alone."""
    groups: list[list[tuple[int, int]]] = []
    left = 0
    for key, weight in found:
        if weight > left or len(groups[-1]) == _JOBS_PER_STATEMENT:
            groups.append([])
            left = _LIGHT_JOB
        groups[-1].append((key, weight))
        left -= weight
    return groups
