"""Operations on tasks, which an external service may finish. Each takes a batch and returns as many results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_middleware.errors import QueueError, UnknownRequest
from queue_middleware.jobs.ids import format_request_id
from queue_middleware.jobs.models import Claim, Failure, JobState, RescuedJob, StoredResponse
from queue_middleware.jobs.outcomes import CANCELLED, WAIT_TIMED_OUT
from queue_middleware.jobs.states import FINAL
from queue_middleware.jobs.store import Topic
from queue_middleware.jobs.task_spec import Task
from queue_middleware.tasks.models import CompletionSource, ExternalResult, ResolveOutcome, Wait
from queue_middleware.tasks.polling.config import poll_host

from . import task_rows
from .bounds import within_bounds
from .codec import clean, encode, encode_headers
from .jobs import end_waiting, finish, finish_early, let_suspects_go_on, make_due
from .transaction import Transaction

Concluded = tuple[Claim, Task, StoredResponse | Failure, Wait | None]
"""Claim, task, outcome, what it waits for from now on."""


# --- for attempts


def expect(transaction: Transaction, batch: Sequence[tuple[Claim, Task]]) -> list[bool]:
    """Jobs that turn out to wait while they are running."""
    return [_expect(transaction, claim, task) for claim, task in batch]


def _expect(transaction: Transaction, claim: Claim, task: Task) -> bool:
    held = transaction.one("running_claim", (claim.key, claim.token)) is not None
    if held:
        _put(transaction, claim, task)
    return held


def _put(transaction: Transaction, claim: Claim, task: Task) -> None:
    """Of a job that was submitted without a task. Whose it is stands in its own row."""
    if task_rows.put(transaction, claim.key, task, ""):
        transaction.backlog.tasks += 1
        transaction.backlog.task_clients.clear()


def conclude(transaction: Transaction, batch: Sequence[Concluded]) -> list[JobState | None]:
    """End attempts: by an early word, by going to wait, or as others are ended."""
    return [_conclude(transaction, *concluded) for concluded in batch]


def _conclude(
    transaction: Transaction, claim: Claim, task: Task, outcome: StoredResponse | Failure, wait: Wait | None
) -> JobState | None:
    key, token = claim.key, claim.token
    row = transaction.one("running_claim", (key, token))
    if row is None:
        row = transaction.one("concluded_by", (key, token))
        return None if row is None else JobState(row[0])
    cancelling, webhook, _ = row
    _put(transaction, claim, task)
    if finish_early(transaction, key, token, webhook):
        return task_rows.state(transaction, key)
    if wait is not None and isinstance(outcome, StoredResponse) and not cancelling:
        _begin_wait(transaction, key, task, outcome, wait)
        return JobState.AWAITING
    outcome = CANCELLED if wait is not None and cancelling else outcome
    finish(transaction, [(key, token, webhook, outcome, True)])
    transaction.backlog.end_task()
    return task_rows.state(transaction, key)


def _begin_wait(transaction: Transaction, key: int, task: Task, answer: StoredResponse, wait: Wait) -> None:
    now = transaction.now
    let_suspects_go_on(transaction)
    transaction.change("begin_wait", (key,))
    transaction.payloads.append((key, encode_headers(answer.headers), answer.body, answer.chunks))
    transaction.change("drop_request_parts", (key,))
    poll_at = None if wait.poll_in is None else now + round(wait.poll_in * 1000)
    poll = None if wait.poll is None else encode(wait.poll)
    config = wait.poll or task.spec.poll
    host = None if config is None else poll_host(config, task.spec.target)
    credentials = encode_headers(wait.credentials) if wait.credentials else None
    waits_until = now + round(wait.seconds * 1000)
    transaction.change("wait", (answer.status, now, waits_until, poll_at, poll, host, credentials, key))
    if poll_at is not None:
        transaction.topics.add(Topic.POLL)


# --- for external services


def resolve(
    transaction: Transaction, batch: Sequence[tuple[int, CompletionSource, ExternalResult]]
) -> list[ResolveOutcome | QueueError]:
    """Store final results; the first one counts."""
    return [_resolve(transaction, *word) for word in batch]


def _resolve(
    transaction: Transaction, key: int, channel: CompletionSource, resolution: ExternalResult
) -> ResolveOutcome | QueueError:
    row = transaction.one("outcome_so_far", (key,))
    if row is None:
        return UnknownRequest("the request is no longer kept")
    state, source = row
    if state == JobState.RUNNING:
        source = task_rows.early_channel(transaction, key)
        if source is None:
            task_rows.keep_early(transaction, key, channel, resolution)
            return ResolveOutcome.DEFERRED
    if source is not None or state in FINAL:
        return ResolveOutcome.DUPLICATE if source == channel else ResolveOutcome.TOO_LATE
    _end(transaction, key, channel, resolution)
    return ResolveOutcome.ENDED


def _end(transaction: Transaction, key: int, channel: CompletionSource, resolution: ExternalResult) -> None:
    response, failure = resolution.response, resolution.failure
    end: tuple[Any, ...] = (JobState.COMPLETED, transaction.now, response.status, None, None, key)
    if failure is not None:
        end = (JobState.FAILED, transaction.now, None, failure.error_type, clean(failure.detail), key)
    row = transaction.one("end_outside", end)
    assert row is not None, "its state was asked for a moment ago"  # noqa: S101
    let_suspects_go_on(transaction)
    transaction.backlog.forget()
    transaction.change("drop_request_parts", (key,))
    task_rows.wait_no_longer(transaction, key)
    task_rows.put_response(transaction, key, response)
    transaction.change("resolved_by", (channel, key))
    make_due(transaction, [(key, row[0])])


def note(transaction: Transaction, batch: Sequence[tuple[int, str]]) -> list[None]:
    """Store intermediate events."""
    for key, event in batch:
        transaction.change("note", (clean(event), key))
    return [None] * len(batch)


def time_out(transaction: Transaction, batch: Sequence[None]) -> list[list[RescuedJob]]:
    """Fail what has waited for too long."""
    late = within_bounds(transaction.all("waited_too_long", {"now": transaction.now}))
    end_waiting(transaction, [key for key, _ in late], WAIT_TIMED_OUT)
    for key, _ in late:
        task_rows.wait_no_longer(transaction, key)
    return [[RescuedJob(format_request_id(key, tail), JobState.FAILED) for key, tail in late] for _ in batch]
