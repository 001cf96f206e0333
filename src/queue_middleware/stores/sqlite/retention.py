"""The operation that deletes what is old enough, inside a transaction that the writer opened."""

from __future__ import annotations

import json
from collections.abc import Sequence

from queue_middleware.lifecycle import LARGE, SHORT, SHORT_IF_LARGE
from queue_middleware.request_id import SEQUENCE_BITS

from .transaction import Transaction


def prune(transaction: Transaction, batch: Sequence[tuple[int, int]]) -> list[int]:
    """Delete finished jobs, and answers that were not to be stored. Batch: retention in milliseconds, and at most how many."""
    return [_prune(transaction, retention, limit) for retention, limit in batch]


def _prune(transaction: Transaction, retention: int, limit: int) -> int:
    transaction.change("forget_receivers", {"before": transaction.now - retention, "limit": limit})
    return _prune_jobs(transaction, retention, limit) + _prune_answers(transaction, limit)


def _prune_jobs(transaction: Transaction, retention: int, limit: int) -> int:
    before = transaction.now - retention
    return transaction.change("prune", {"first_kept": (before + 1) << SEQUENCE_BITS, "before": before, "limit": limit})


def _prune_answers(transaction: Transaction, limit: int) -> int:
    ages = {"before": transaction.now - SHORT, "before_if_large": transaction.now - SHORT_IF_LARGE, "large": LARGE}
    keys = [row[0] for row in transaction.all("short_lived", {**ages, "limit": limit})]
    if keys:
        for name in ("drop_answers", "drop_answer_parts", "drop_short_lived"):
            transaction.change(name, (json.dumps(keys),))
    return len(keys)
