"""Operations on polls: claim and settle. Each takes a batch and returns as many results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_middleware.jobs.ids import format_request_id
from queue_middleware.jobs.models import StoredResponse
from queue_middleware.jobs.store import Topic
from queue_middleware.tasks.models import ClaimedPolls, Poll, PollCapacity
from queue_middleware.tasks.polling.schedule import HostSelector

from . import task_rows
from .codec import clean, decode_headers, decode_poll, decode_secrets
from .transaction import Transaction

_LOOKED_AT = 500
"""Due polls that one claim looks at."""
_PUT_OFF = 15_000
"""Milliseconds for which those are put off whose hosts have more due than that: others are to be seen behind them."""


def claim(transaction: Transaction, batch: Sequence[PollCapacity]) -> list[ClaimedPolls]:
    """Start due polls, shared out between their hosts."""
    return [_claim(transaction, places) for places in batch]


def _claim(transaction: Transaction, places: PollCapacity) -> ClaimedPolls:
    chosen, more = _choose(transaction, places)
    polls = _start(transaction, chosen) if chosen else []
    if more:
        return ClaimedPolls(polls, 0.0)
    row = transaction.one("next_poll_after", (transaction.now,))
    return ClaimedPolls(polls, None if row is None or row[0] is None else (row[0] - transaction.now) / 1000)


def _choose(transaction: Transaction, places: PollCapacity) -> tuple[list[int], bool]:
    """The keys of the polls that are made now; and whether others may be due behind those that were looked at."""
    choice = HostSelector(places)
    chosen: list[int] = []
    held_back: list[int] = []
    for key, host in transaction.all("due_polls", (transaction.now, _LOOKED_AT)):
        if not choice.left:
            break
        (chosen if choice.take(host) else held_back).append(key)
    # But for as many as could be asked when a place becomes free.
    put_off = held_back[places.per_host :]
    if not choice.left or not put_off or len(chosen) + len(held_back) < _LOOKED_AT:
        return chosen, False
    transaction.change("put_off_polls", (transaction.now + _PUT_OFF, put_off))
    return chosen, True


def _start(transaction: Transaction, keys: Sequence[int]) -> list[Poll]:
    """Claim these polls, but for those that another process has claimed since; in this order."""
    own = {"keys": keys, "owner": transaction.owner, "lease_until": transaction.lease_until}
    claimed = {row[0]: row[1:] for row in transaction.all("claim_polls", own)}
    responses = {row[0]: row[1:] for row in transaction.all("payloads", (keys,))}
    return [_poll(key, claimed[key], responses[key]) for key in keys if key in claimed]


def _poll(key: int, row: tuple[Any, ...], response: tuple[bytes, bytes, int]) -> Poll:
    token, number, failures, status, deadline, poll, host, credentials, secrets, tail, *columns = row
    task = task_rows.task(columns)
    config = decode_poll(poll) if poll else task.spec.poll
    assert config is not None, "a task with poll_at has a poll configuration"  # noqa: S101
    if secrets is not None:
        config = config.replace(headers=decode_secrets(secrets))
    head, body, chunks = response
    return Poll(
        key=key,
        request_id=format_request_id(key, tail),
        token=token,
        number=number,
        failures=failures,
        task=task,
        config=config,
        start_response=StoredResponse(status, decode_headers(head), body, chunks),
        deadline=deadline,
        credentials=decode_headers(credentials) if credentials else (),
        host=host,
    )


def settle(transaction: Transaction, batch: Sequence[tuple[Poll, int | None, str | None, int]]) -> list[bool]:
    """Record polls that were not the end; the next in so many milliseconds, or none."""
    return [_settle(transaction, *settlement) for settlement in batch]


def _settle(transaction: Transaction, poll: Poll, wait: int | None, event: str | None, troubles: int) -> bool:
    poll_at = None if wait is None else transaction.now + wait
    row = {"key": poll.key, "token": poll.token, "poll_at": poll_at, "event": event and clean(event), "troubles": troubles}
    held = transaction.change("settle_poll", row) > 0
    if held:
        transaction.topics.add(Topic.POLL)
    return held
