"""The operations on webhook deliveries, each from a batch to its results, inside a transaction that the writer opened."""

from __future__ import annotations

import json
from collections.abc import Sequence

from queue_middleware.models import Attempt, Delivery, DeliveryState
from queue_middleware.request_id import format_request_id
from queue_middleware.store import Topic

from .transaction import Transaction


def claim(transaction: Transaction, batch: Sequence[int]) -> list[list[Delivery]]:
    """Start up to so many due deliveries, the longest due first."""
    return [_claim(transaction, limit) for limit in batch]


def _claim(transaction: Transaction, limit: int) -> list[Delivery]:
    rows = transaction.all(
        "claim_deliveries",
        {
            "owner": transaction.owner,
            "now": transaction.now,
            "lease_until": transaction.now + transaction.lease,
            "limit": limit,
        },
    )
    if not rows:
        return []
    rows.sort(key=lambda row: (row[5], row[0]))
    tails = dict(transaction.all("delivery_jobs", (json.dumps([row[4] for row in rows]),)))
    return [
        Delivery(number, token, url, attempt, key, format_request_id(key, tails[key]))
        for number, token, url, attempt, key, _ in rows
    ]


Settlement = tuple[Delivery, Attempt, bool, int | None]
"""Delivery, attempt, delivered, milliseconds to the next."""


def settle(transaction: Transaction, batch: Sequence[Settlement]) -> list[bool]:
    """Record attempts and what follows from them."""
    return [_settle(transaction, *settlement) for settlement in batch]


def _settle(transaction: Transaction, delivery: Delivery, attempt: Attempt, delivered: bool, retry_in: int | None) -> bool:
    state = DeliveryState.DELIVERED if delivered else DeliveryState.DEAD if retry_in is None else DeliveryState.PENDING
    due_at = transaction.now + (retry_in or 0)
    changed = transaction.change("settle", {"id": delivery.id, "token": delivery.token, "state": state, "due_at": due_at})
    if not changed:
        return False
    row = (delivery.id, delivery.attempt, attempt.at, attempt.duration, attempt.status, attempt.error, attempt.answer)
    transaction.change("insert_attempt", row)
    if state is DeliveryState.PENDING:
        transaction.topics.add(Topic.DELIVERY)
    return True
