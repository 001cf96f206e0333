"""What the writer must know about operations before it runs them: their size, and which of them may take long."""

from __future__ import annotations

from typing import Any

from queue_middleware.jobs.models import CHUNK_SIZE, Claim, Failure, StoredResponse

from . import bulk, copies, deliveries, jobs, requeueing, tasks
from .pending import Operation

ONE_BY_ONE: frozenset[Operation[Any, Any]] = frozenset(
    {
        jobs.cancel, jobs.fail, jobs.expire,
        requeueing.retry, requeueing.release, requeueing.release_all, requeueing.lose, requeueing.rescue,
        tasks.complete_attempt, tasks.resolve, tasks.time_out, deliveries.redeliver, bulk.cancel, copies.copy,
    }
)  # fmt: skip
"""Operations that may delete many rows, or a long request or response whose size is not known beforehand."""


def ended_attempt(claim: Claim, outcome: StoredResponse | Failure) -> jobs.EndedAttempt:
    """The payload of `jobs.finish` and `jobs.fail`."""
    return claim.key, claim.token, claim.webhook, outcome, len(claim.request.body) > CHUNK_SIZE


def long_request_bytes(claim: Claim) -> int:
    """The bytes of a request that is stored in chunks, which `jobs.finish` deletes; 0 for a short request."""
    size = len(claim.request.body)
    return size if size > CHUNK_SIZE else 0
