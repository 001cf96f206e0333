"""Stores and reads the trace context of a job's attempt, to which spans of later calls are linked."""

from __future__ import annotations

from collections.abc import Sequence

from queue_middleware.jobs.models import Claim

from .transaction import Queries, Transaction


def keep_trace(transaction: Transaction, batch: Sequence[tuple[Claim, str]]) -> list[bool]:
    """Store the context of an attempt in place of that of an earlier one. False for a claim that another one has replaced."""
    return [transaction.change("put_trace", (claim.key, claim.token, context)) > 0 for claim, context in batch]


def trace_of(queries: Queries, key: int) -> str | None:
    """The stored context of a job."""
    row = queries.one("trace", (key,))
    return None if row is None else str(row[0])
