"""Operations on jobs: claim, finish, cancel, expire. Each takes a batch and returns as many results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from queue_middleware.errors import QueueError, UnknownRequest
from queue_middleware.jobs.ids import format_request_id, parse_request_id
from queue_middleware.jobs.models import (
    CancelOutcome,
    Claim,
    ErrorType,
    Failure,
    JobState,
    RescuedJob,
    RetryCause,
    RetryPolicy,
    StoredResponse,
)
from queue_middleware.jobs.outcomes import CANCELLED, OVERDUE, UNREADABLE
from queue_middleware.jobs.states import FINAL
from queue_middleware.jobs.store import Topic
from queue_middleware.webhooks.models import receiver_host

from . import task_rows
from .bounds import within_bounds
from .codec import clean, decode_events, decode_request
from .transaction import Transaction
from .webhook_events import add_started

Ended = tuple[int, int, str | None, StoredResponse | Failure, bool]
"""Key, token, webhook, outcome, whether its request may have parts."""


_retries = msgspec.json.Decoder(dict[RetryCause, int])


# --- starting


def promote(transaction: Transaction) -> None:
    """Delayed jobs whose time has come are queued, each in its old place; of suspects one, when no other is queued or runs."""
    backlog = transaction.backlog
    transaction.refresh()
    changed = transaction.change("promote", (transaction.now,)) if backlog.delayed or backlog.scheduled else 0
    if backlog.suspects:
        changed += transaction.change("clear_suspects")
        changed += transaction.change("promote_suspect", (transaction.now,))
    if changed:
        backlog.forget()
        transaction.refresh()


def let_suspects_go_on(transaction: Transaction) -> None:
    """A job has ended, which may have been a suspect: the next one may run."""
    if transaction.backlog.suspects:
        transaction.topics.add(Topic.WORK)


def claim(transaction: Transaction, batch: Sequence[int]) -> list[list[Claim]]:
    """Start up to so many jobs."""
    return [_claim(transaction, limit) for limit in batch]


def _claim(transaction: Transaction, limit: int) -> list[Claim]:
    promote(transaction)
    if not transaction.backlog.queued.total():
        return []
    asked = {"owner": transaction.owner, "now": transaction.now, "lease_until": transaction.lease_until, "limit": limit}
    rows = transaction.all("claim", asked)
    rows.sort(key=lambda row: (row[8], row[0]))
    requests = {row[0]: row[1:] for row in transaction.all("payloads", ([row[0] for row in rows],))}
    claims: list[Claim] = []
    tasks = task_rows.tasks(transaction, [row[0] for row in rows if row[10]])
    for key, tail, token, attempt, max_attempts, retries, webhook, events, priority, client, _ in rows:
        transaction.backlog.leave(priority, client)
        head, body, parts = requests[key]
        if parts:
            body = b"".join((body, *(row[0] for row in transaction.all("request_parts", (key,)))))
        policy = policy_of(max_attempts, retries)
        try:
            request = decode_request(head, body)
        except msgspec.DecodeError:
            # It can never be run, and must not block the others. A worker that gets fewer claims than it asked for takes
            # the queue for empty, so it is notified to claim again.
            finish(transaction, [(key, token, webhook, UNREADABLE, True)])
            transaction.topics.add(Topic.WORK)
            transaction.backlog.forget()
            continue
        task = tasks.get(key)
        if task is not None:
            policy = policy.replace(backoff=task.spec.backoff)
        claim = Claim(key, format_request_id(key, tail), token, attempt, policy, request, webhook, task=task)
        if events is not None:
            claim = claim.replace(events=decode_events(events))
            add_started(transaction, claim)
        claims.append(claim)
    return claims


def policy_of(max_attempts: int, retries: str | None) -> RetryPolicy:
    """From the columns."""
    return RetryPolicy(max_attempts, _retries.decode(retries) if retries else {})


# --- ending an attempt


def append(transaction: Transaction, batch: Sequence[tuple[Claim, int, bytes]]) -> list[bool]:
    """Store parts of answers that are still being produced."""
    return [
        transaction.change("append", {"key": claim.key, "token": claim.token, "number": number, "data": data}) > 0
        for claim, number, data in batch
    ]


def finish(transaction: Transaction, batch: Sequence[Ended]) -> list[bool]:
    """End jobs with an answer or a failure; result, state and the webhook's row belong to one transaction."""
    rows = [_outcome_row(transaction, key, token, outcome) for key, token, _, outcome, _ in batch]
    held = transaction.held("finish", rows)
    if len(held) == len(batch):
        _clear_up(transaction, batch)
        return [True] * len(batch)
    claims = {row[:2] for row in held}
    _clear_up(transaction, [ended for ended in batch if ended[:2] in claims])
    return [ended[:2] in claims or _has_finished(transaction, ended) for ended in batch]


def _has_finished(transaction: Transaction, ended: Ended) -> bool:
    """Whether this claim ended its job before, with a write that is repeated now."""
    row = transaction.one("finished_by", ended[:2])
    return row is not None and bool(row[0])


def _clear_up(transaction: Transaction, batch: Sequence[Ended]) -> None:
    if not batch:
        return
    for key, _, _, outcome, has_parts in batch:
        if isinstance(outcome, Failure):
            transaction.change("drop_response_parts", (key,))
            transaction.change("drop_request", (key,))
        else:
            task_rows.put_response(transaction, key, outcome)
        if has_parts:
            transaction.change("drop_request_parts", (key,))
    make_due(transaction, [(key, webhook) for key, _, webhook, _, _ in batch])
    let_suspects_go_on(transaction)


def fail(transaction: Transaction, batch: Sequence[Ended]) -> list[bool]:
    """`finish` for failures, apart from it: what such an attempt had produced by then may be long, and is deleted."""
    return finish(transaction, batch)


def _outcome_row(transaction: Transaction, key: int, token: int, outcome: StoredResponse | Failure) -> tuple[Any, ...]:
    if isinstance(outcome, StoredResponse):
        return key, token, JobState.COMPLETED, transaction.now, outcome.status, None, None
    return key, token, end_state(outcome), transaction.now, None, outcome.error_type, clean(outcome.detail)


def end_state(failure: Failure) -> JobState:
    """The state of a job that ends with this failure."""
    return JobState.CANCELLED if failure.error_type is ErrorType.CLIENT_CANCELLED else JobState.FAILED


def finish_early(transaction: Transaction, key: int, token: int, webhook: str | None) -> StoredResponse | Failure | None:
    """End an attempt by the last word that came while it was running, if one did; how it ended."""
    word = task_rows.early(transaction, key)
    if word is None:
        return None
    channel, resolution = word
    transaction.change("drop_response_parts", (key,))  # nothing is kept of what the call has answered
    outcome = resolution.failure or resolution.response
    finish(transaction, [(key, token, webhook, outcome, True)])
    task_rows.put_word(transaction, key, channel, resolution)
    transaction.backlog.end_task()
    return outcome


def make_due(transaction: Transaction, ended: Sequence[tuple[int, str | None]]) -> None:
    """The webhooks of jobs (key, webhook) that have ended."""
    deliveries = [(key, webhook, receiver_host(webhook), transaction.now) for key, webhook in ended if webhook is not None]
    if deliveries:
        transaction.rows("insert_deliveries", deliveries)
        transaction.topics.add(Topic.DELIVERY)


# --- ending from outside


def cancel(transaction: Transaction, batch: Sequence[str]) -> list[CancelOutcome | QueueError]:
    """End waiting jobs, mark running ones to be cancelled."""
    return [_cancel(transaction, request_id) for request_id in batch]


def _cancel(transaction: Transaction, request_id: str) -> CancelOutcome | QueueError:
    first, tail = parse_request_id(request_id)
    row = transaction.one("find", {"first": first, "tail": tail})
    if row is None:
        return UnknownRequest(f"there is no request {request_id}")
    key, state = row
    if state in FINAL:
        return CancelOutcome.FINISHED
    if state == JobState.RUNNING:
        transaction.change("want_cancelled", (key,))
        transaction.topics.add(Topic.CANCEL)
        return CancelOutcome.RUNNING
    end_waiting(transaction, [key], CANCELLED)
    if state == JobState.AWAITING:
        task_rows.wait_no_longer(transaction, key)
    return CancelOutcome.CANCELLED


def expire(transaction: Transaction, batch: Sequence[None]) -> list[list[RescuedJob]]:
    """Fail the waiting jobs whose start deadline has passed."""
    overdue = within_bounds(transaction.all("overdue", (transaction.now,)))
    end_waiting(transaction, [key for key, _ in overdue], OVERDUE)
    return [[RescuedJob(format_request_id(key, tail), JobState.FAILED) for key, tail in overdue] for _ in batch]


def end_waiting(transaction: Transaction, keys: Sequence[int], failure: Failure) -> None:
    """Fail jobs that are queued, delayed, or awaiting an external service."""
    end = (end_state(failure), transaction.now, failure.error_type, failure.detail, list(keys))
    ended = transaction.all("end_waiting", end)
    if ended:
        let_suspects_go_on(transaction)
        transaction.backlog.forget()
        for key, _ in ended:
            transaction.change("drop_request", (key,))
            transaction.change("drop_request_parts", (key,))
        make_due(transaction, ended)
