"""Operations on tasks, which an external service may finish. Each takes a batch and returns one result per item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_middleware.errors import QueueError, UnknownRequest
from queue_middleware.jobs.ids import format_request_id
from queue_middleware.jobs.models import AttemptEnd, Claim, ErrorType, Failure, JobState, RescuedJob, StoredResponse
from queue_middleware.jobs.outcomes import CANCELLED, WAIT_TIMED_OUT
from queue_middleware.jobs.states import FINAL
from queue_middleware.jobs.store import Topic
from queue_middleware.jobs.task_spec import Task
from queue_middleware.tasks.models import CompletionSource, ExternalResult, ResolveOutcome, Wait
from queue_middleware.tasks.polling.config import poll_host

from . import keeping, task_rows
from .bounds import within_bounds
from .codec import clean, encode, encode_headers
from .jobs import end_not_running, end_of, finish, finish_with_early_result, insert_deliveries, notify_next_suspect
from .responses import put_response
from .transaction import Transaction

Completed = tuple[Claim, Task, StoredResponse | Failure, Wait | None]
"""Claim, task, outcome of the attempt, what the job waits for from now on."""


# --- for attempts


def register_callback(transaction: Transaction, batch: Sequence[tuple[Claim, Task]]) -> list[bool]:
    """Make running plain jobs tasks, because their handlers requested a callback URL."""
    return [_register_callback(transaction, claim, task) for claim, task in batch]


def _register_callback(transaction: Transaction, claim: Claim, task: Task) -> bool:
    held = transaction.one("running_claim", (claim.key, claim.token)) is not None
    if held:
        _ensure_task(transaction, claim, task)
    return held


def _ensure_task(transaction: Transaction, claim: Claim, task: Task) -> None:
    """Insert the task of a job that was submitted without one. It is not listed for a client."""
    if task_rows.insert_task(transaction, claim.key, task, ""):
        transaction.counters.tasks += 1
        transaction.counters.task_clients.clear()


def complete_attempt(transaction: Transaction, batch: Sequence[Completed]) -> list[AttemptEnd | None]:
    """End attempts: by an early result, by a wait for an external service, or as attempts of plain jobs end."""
    return [_complete_attempt(transaction, *end) for end in batch]


def _complete_attempt(
    transaction: Transaction, claim: Claim, task: Task, outcome: StoredResponse | Failure, wait: Wait | None
) -> AttemptEnd | None:
    key, token = claim.key, claim.token
    row = transaction.one("running_claim", (key, token))
    if row is None:
        row = transaction.one("state_completed_by", (key, token))
        return None if row is None else _attempt_end(*row)
    cancelling, webhook, _ = row
    _ensure_task(transaction, claim, task)
    if early := finish_with_early_result(transaction, key, token, webhook):
        return end_of(early)
    if wait is not None and isinstance(outcome, StoredResponse) and not cancelling:
        _begin_wait(transaction, claim, task, outcome, wait)
        return AttemptEnd(JobState.AWAITING)
    outcome = CANCELLED if wait is not None and cancelling else outcome
    finish(transaction, [(key, token, webhook, outcome, True)])
    transaction.counters.end_task()
    return end_of(outcome)


def _attempt_end(state: str, status: int | None, error: str | None) -> AttemptEnd:
    """From the columns."""
    return AttemptEnd(JobState(state), status, None if error is None else ErrorType(error))


def _begin_wait(transaction: Transaction, claim: Claim, task: Task, response: StoredResponse, wait: Wait) -> None:
    key, now = claim.key, transaction.now
    keeping.begin_wait(transaction, key, claim.token)
    notify_next_suspect(transaction)
    transaction.change("set_awaiting", (key,))
    transaction.payloads.append((key, encode_headers(response.headers), response.body, response.chunks))
    transaction.change("delete_request_chunks", (key,))
    poll_at = None if wait.poll_in is None else now + round(wait.poll_in * 1000)
    poll = None if wait.poll is None else encode(wait.poll)
    config = wait.poll or task.spec.poll
    host = None if config is None else poll_host(config, task.spec.target)
    credentials = encode_headers(wait.credentials) if wait.credentials else None
    awaits_until = now + round(wait.seconds * 1000)
    transaction.change("begin_wait", (response.status, now, awaits_until, poll_at, poll, host, credentials, key))
    if poll_at is not None:
        transaction.topics.add(Topic.POLL)


# --- for external services


def resolve(
    transaction: Transaction, batch: Sequence[tuple[int, CompletionSource, ExternalResult]]
) -> list[ResolveOutcome | QueueError]:
    """Store final results; the first one counts."""
    return [_resolve(transaction, *item) for item in batch]


def _resolve(
    transaction: Transaction, key: int, source: CompletionSource, result: ExternalResult
) -> ResolveOutcome | QueueError:
    row = transaction.one("state_and_source", (key,))
    if row is None:
        return UnknownRequest("the request is no longer kept")
    state, resolved_by = row
    if state == JobState.RUNNING:
        resolved_by = task_rows.early_result_source(transaction, key)
        if resolved_by is None:
            task_rows.insert_early_result(transaction, key, source, result)
            return ResolveOutcome.DEFERRED
    if resolved_by is not None or state in FINAL:
        return ResolveOutcome.DUPLICATE if resolved_by == source else ResolveOutcome.TOO_LATE
    _resolve_job(transaction, key, source, result)
    return ResolveOutcome.ENDED


def _resolve_job(transaction: Transaction, key: int, source: CompletionSource, result: ExternalResult) -> None:
    response, failure = result.response, result.failure
    columns: tuple[Any, ...] = (JobState.COMPLETED, transaction.now, response.status, None, None, key)
    if failure is not None:
        columns = (JobState.FAILED, transaction.now, None, failure.error_type, clean(failure.detail), key)
    keeping.end_not_running(transaction, [key], failure or response)
    row = transaction.one("resolve_job", columns)
    assert row is not None, "the state was read in this transaction"  # noqa: S101
    notify_next_suspect(transaction)
    transaction.counters.invalidate()
    transaction.change("delete_request_chunks", (key,))
    task_rows.end_wait(transaction, key)
    put_response(transaction, key, response)
    transaction.change("set_resolved_by", (source, key))
    insert_deliveries(transaction, [(key, row[0])])


def record_status(transaction: Transaction, batch: Sequence[tuple[int, str]]) -> list[None]:
    """Store intermediate statuses."""
    for key, status in batch:
        transaction.change("record_status", (clean(status), key))
    return [None] * len(batch)


def time_out(transaction: Transaction, batch: Sequence[None]) -> list[list[RescuedJob]]:
    """Fail tasks whose wait has timed out."""
    timed_out = within_bounds(transaction.all("timed_out_tasks", {"now": transaction.now}))
    end_not_running(transaction, [key for key, _ in timed_out], WAIT_TIMED_OUT)
    for key, _ in timed_out:
        task_rows.end_wait(transaction, key)
    return [[RescuedJob(format_request_id(key, tail), JobState.FAILED) for key, tail in timed_out] for _ in batch]
