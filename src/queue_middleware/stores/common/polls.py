"""Operations on polls: claim and settle. Each takes a batch and returns as many results."""

from __future__ import annotations

from collections.abc import Sequence

from queue_middleware.jobs.ids import format_request_id
from queue_middleware.jobs.models import StoredResponse
from queue_middleware.jobs.store import Topic
from queue_middleware.jobs.task_spec import PollConfig, Task
from queue_middleware.tasks.models import ClaimedPolls, Poll, PollCapacity
from queue_middleware.tasks.polling.config import poll_host
from queue_middleware.tasks.polling.schedule import HostSelector

from . import task_rows
from .codec import decode_headers, decode_poll, decode_secrets, decode_spec
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
    tasks = task_rows.tasks(transaction, [key for key, *_ in chosen])
    polls = [_start(transaction, key, tasks[key], config, host) for key, config, host in chosen]
    if more:
        return ClaimedPolls(polls, 0.0)
    row = transaction.one("next_poll_after", (transaction.now,))
    return ClaimedPolls(polls, None if row is None or row[0] is None else (row[0] - transaction.now) / 1000)


def _choose(transaction: Transaction, places: PollCapacity) -> tuple[list[tuple[int, PollConfig, str]], bool]:
    """Key, how and whom to ask, of those that are asked now; and whether others may stand behind those that were looked at."""
    choice = HostSelector(places)
    chosen: list[tuple[int, PollConfig, str]] = []
    held_back: list[int] = []
    # Row by row: with places for all, no more are read than are begun.
    with transaction.stream("due_polls", (transaction.now, _LOOKED_AT)) as due:
        while choice.left and (row := next(due, None)) is not None:
            key, config, home = _addressee(*row)
            host = poll_host(config, home)
            if choice.take(host):
                chosen.append((key, config, host))
            else:
                held_back.append(key)
    # But for as many as could be asked when a place becomes free.
    put_off = held_back[places.per_host :]
    if not choice.left or not put_off or len(chosen) + len(held_back) < _LOOKED_AT:
        return chosen, False
    transaction.change("postpone_polls", (transaction.now + _PUT_OFF, put_off))
    return chosen, True


def _addressee(key: int, spec: bytes, poll: bytes | None) -> tuple[int, PollConfig, str]:
    task_spec = decode_spec(spec)
    config = decode_poll(poll) if poll else task_spec.poll
    assert config is not None, "a task with poll_at has a poll configuration"  # noqa: S101
    return key, config, task_spec.target


def _start(transaction: Transaction, key: int, task: Task, config: PollConfig, host: str) -> Poll:
    row = transaction.one("claim_poll", {"key": key, "owner": transaction.owner, "lease_until": transaction.lease_until})
    answer = transaction.one("response", (key,))
    assert row is not None  # noqa: S101
    assert answer is not None  # noqa: S101
    token, number, troubles, status, waits_until, credentials, secrets, tail = row
    if secrets is not None:
        config = config.replace(headers=decode_secrets(secrets))
    return Poll(
        key=key,
        request_id=format_request_id(key, tail),
        token=token,
        number=number,
        failures=troubles,
        task=task,
        config=config,
        start_response=StoredResponse(status, decode_headers(answer[0]), answer[1], answer[2]),
        deadline=waits_until,
        credentials=decode_headers(credentials) if credentials else (),
        host=host,
    )


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
