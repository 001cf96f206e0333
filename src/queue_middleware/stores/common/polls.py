"""Operations on polls: claim and settle. Each takes a batch and returns one result per item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_middleware.jobs.ids import format_request_id
from queue_middleware.jobs.models import StoredResponse
from queue_middleware.jobs.store import Topic
from queue_middleware.tasks.models import ClaimedPolls, PollCapacity, PollClaim
from queue_middleware.tasks.polling.schedule import HostSelector

from . import task_rows
from .codec import clean, decode_headers, decode_poll, decode_secrets
from .transaction import Transaction

_MAX_DUE = 500
"""Due polls that one claim reads."""
_POSTPONE_MS = 15_000
"""If one claim cannot read all due polls, those of hosts at their limit are postponed, so that later ones can be read."""


def claim(transaction: Transaction, batch: Sequence[PollCapacity]) -> list[ClaimedPolls]:
    """Start due polls; `HostSelector` shares the capacity between hosts."""
    return [_claim(transaction, capacity) for capacity in batch]


def _claim(transaction: Transaction, capacity: PollCapacity) -> ClaimedPolls:
    chosen, more = _choose(transaction, capacity)
    polls = _start(transaction, chosen) if chosen else []
    if more:
        return ClaimedPolls(polls, 0.0)
    row = transaction.one("next_poll_after", (transaction.now,))
    return ClaimedPolls(polls, None if row is None or row[0] is None else (row[0] - transaction.now) / 1000)


def _choose(transaction: Transaction, capacity: PollCapacity) -> tuple[list[int], bool]:
    """The keys of the polls to start, and whether more may be due than were read."""
    selector = HostSelector(capacity)
    chosen: list[int] = []
    held_back: list[int] = []
    for key, host in transaction.all("due_polls", (transaction.now, _MAX_DUE)):
        if not selector.left:
            break
        (chosen if selector.take(host) else held_back).append(key)
    # As many as one host may have at once stay due, for when capacity becomes free.
    postponed = held_back[capacity.per_host :]
    if not selector.left or not postponed or len(chosen) + len(held_back) < _MAX_DUE:
        return chosen, False
    transaction.change("postpone_polls", (transaction.now + _POSTPONE_MS, postponed))
    return chosen, True


def _start(transaction: Transaction, keys: Sequence[int]) -> list[PollClaim]:
    """Claim these polls, in this order, except those that another process has claimed since they were read."""
    parameters = {"keys": keys, "owner": transaction.owner, "lease_until": transaction.lease_until}
    claimed = {row[0]: row[1:] for row in transaction.all("claim_polls", parameters)}
    responses = {row[0]: row[1:] for row in transaction.all("payloads", (keys,))}
    return [_poll(key, claimed[key], responses[key]) for key in keys if key in claimed]


def _poll(key: int, row: tuple[Any, ...], response: tuple[bytes, bytes, int]) -> PollClaim:
    token, number, failures, status, deadline, poll, host, credentials, secrets, tail, *columns = row
    task = task_rows.task_of(columns)
    config = decode_poll(poll) if poll else task.spec.poll
    assert config is not None, "a task with poll_at has a poll configuration"  # noqa: S101
    if secrets is not None:
        config = config.replace(headers=decode_secrets(secrets))
    head, body, chunks = response
    return PollClaim(
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


def settle(transaction: Transaction, batch: Sequence[tuple[PollClaim, int | None, str | None, int]]) -> list[bool]:
    """Record polls without a final result. Each item has the milliseconds to the next poll; None if there is none."""
    return [_settle(transaction, *settlement) for settlement in batch]


def _settle(transaction: Transaction, poll: PollClaim, next_in: int | None, status: str | None, failures: int) -> bool:
    poll_at = None if next_in is None else transaction.now + next_in
    row = {"key": poll.key, "token": poll.token, "poll_at": poll_at, "event": status and clean(status), "failures": failures}
    held = transaction.change("settle_poll", row) > 0
    if held:
        transaction.topics.add(Topic.POLL)
    return held
