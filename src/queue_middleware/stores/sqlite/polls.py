"""The operations on polls, each from a batch to its results, inside a transaction that the writer opened."""

from __future__ import annotations

from collections.abc import Sequence

from queue_middleware.models import StoredResponse
from queue_middleware.request_id import format_request_id
from queue_middleware.store import Topic
from queue_middleware.tasks import Poll

from . import taskrows
from .codec import decode_headers, decode_poll
from .transaction import Transaction

_LEASE = 60_000
"""Milliseconds after which a poll of which nothing was heard is made again. Longer than any of them may take."""


def claim(transaction: Transaction, batch: Sequence[int]) -> list[list[Poll]]:
    """Start up to so many due polls, the longest due first."""
    return [_claim(transaction, limit) for limit in batch]


def _claim(transaction: Transaction, limit: int) -> list[Poll]:
    keys = [row[0] for row in transaction.all("due_polls", (transaction.now, limit))]
    if not keys:
        return []
    tasks = taskrows.tasks(transaction, keys)
    polls: list[Poll] = []
    for key in keys:
        row = transaction.one("claim_poll", {"key": key, "lease_until": transaction.now + _LEASE})
        answer = transaction.one("response", (key,))
        assert row is not None  # noqa: S101
        assert answer is not None  # noqa: S101
        token, number, troubles, status, started_at, waits_until, poll, credentials, tail = row
        config = decode_poll(poll) if poll else tasks[key].spec.poll
        assert config is not None, "nothing says how it is polled"  # noqa: S101
        polls.append(
            Poll(
                key=key,
                request_id=format_request_id(key, tail),
                token=token,
                number=number,
                troubles=troubles,
                task=tasks[key],
                config=config,
                start=StoredResponse(status, decode_headers(answer[0]), answer[1], answer[2]),
                started_at=started_at,
                waits_until=waits_until,
                credentials=decode_headers(credentials) if credentials else (),
            )
        )
    return polls


def settle(transaction: Transaction, batch: Sequence[tuple[Poll, int | None, str | None, int]]) -> list[bool]:
    """Record polls that were not the end; the next in so many milliseconds, or none."""
    return [_settle(transaction, *settlement) for settlement in batch]


def _settle(transaction: Transaction, poll: Poll, wait: int | None, event: str | None, troubles: int) -> bool:
    poll_at = None if wait is None else transaction.now + wait
    row = {"key": poll.key, "token": poll.token, "poll_at": poll_at, "event": event, "troubles": troubles}
    held = transaction.change("settle_poll", row) > 0
    if held:
        transaction.topics.add(Topic.POLL)
    return held
