"""Facts about operations that the writer needs before it runs them: their size, and which may take long whatever their size."""

from __future__ import annotations

from typing import Any

from queue_middleware.jobs.models import CHUNK_SIZE, Claim, Failure, StoredResponse

from . import deliveries, jobs, returns, tasks
from .writer import Operation

ONE_BY_ONE: frozenset[Operation[Any, Any]] = frozenset(
    {
        jobs.cancel, jobs.fail, jobs.expire, returns.retry, returns.release, returns.release_all, returns.lose, returns.rescue,
        tasks.complete_attempt, tasks.resolve, tasks.time_out, deliveries.redeliver,
    }
)  # fmt: skip
"""They may delete a long answer or request whose size is not known beforehand, or many rows."""


def ended_attempt(claim: Claim, outcome: StoredResponse | Failure) -> jobs.EndedAttempt:
    """The end of a claim's attempt."""
    return claim.key, claim.token, claim.webhook, outcome, len(claim.request.body) > CHUNK_SIZE


def long_request_bytes(claim: Claim) -> int:
    """Bytes of a long request, which are deleted with its end."""
    size = len(claim.request.body)
    return size if size > CHUNK_SIZE else 0
