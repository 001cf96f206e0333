"""Operations on jobs: claim, finish, cancel, expire. Each takes a batch and returns one result per item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from queue_middleware.errors import QueueError, UnknownRequest
from queue_middleware.jobs.ids import format_request_id, parse_request_id
from queue_middleware.jobs.models import (
    CHUNK_SIZE,
    AttemptEnd,
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
from queue_middleware.jobs.pauses import ALL_ROUTES
from queue_middleware.jobs.states import FINAL
from queue_middleware.jobs.store import Topic
from queue_middleware.webhooks.models import receiver_host

from . import keeping, task_rows
from .bounds import within_bounds
from .codec import clean, decode_request, decode_webhook_kinds
from .pauses import held_routes
from .responses import put_response
from .transaction import Transaction
from .webhook_events import add_started

EndedAttempt = tuple[int, int, str | None, StoredResponse | Failure, bool]
"""Key, token, webhook URL, outcome, whether the request may have chunks."""

_retries = msgspec.json.Decoder(dict[RetryCause, int])


# --- starting


def claim(transaction: Transaction, batch: Sequence[int]) -> list[list[Claim]]:
    """Start queued jobs, except those of paused routes; each item is the largest number of jobs to start."""
    return [_claim(transaction, limit) for limit in batch]


def _claim(transaction: Transaction, limit: int) -> list[Claim]:
    promote(transaction)
    if not transaction.counters.queued.total():
        return []
    parameters = {"owner": transaction.owner, "now": transaction.now, "lease_until": transaction.lease_until, "limit": limit}
    rows = _claimed_rows(transaction, parameters)
    rows.sort(key=lambda row: (row[8], row[0]))
    requests = {row[0]: row[1:] for row in transaction.all("payloads", ([row[0] for row in rows],))}
    claims: list[Claim] = []
    tasks = task_rows.tasks(transaction, [row[0] for row in rows if row[10]])
    for key, tail, token, attempt, max_attempts, retries, webhook, kinds, priority, client, _, route in rows:
        transaction.counters.leave(priority, client)
        head, body, chunks = requests[key]
        if chunks:
            body = b"".join((body, *(row[0] for row in transaction.all("request_chunks", (key,)))))
        policy = policy_of(max_attempts, retries)
        try:
            request = decode_request(head, body)
        except msgspec.DecodeError:
            # It can never be run, and must not block the others. A worker that gets fewer claims than it requested assumes
            # that the queue is empty, so it is notified to claim again.
            finish(transaction, [(key, token, webhook, UNREADABLE, True)])
            transaction.topics.add(Topic.WORK)
            transaction.counters.invalidate()
            continue
        task = tasks.get(key)
        if task is not None:
            policy = policy.replace(backoff=task.spec.backoff)
        template = transaction.routes.template(transaction, route)
        claim = Claim(key, format_request_id(key, tail), token, attempt, policy, request, webhook, (), task, template, client)
        if kinds is not None:
            claim = claim.replace(webhook_kinds=decode_webhook_kinds(kinds))
            add_started(transaction, claim)
        claims.append(claim)
    return claims


def _claimed_rows(transaction: Transaction, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    if not (held := held_routes(transaction)):
        return transaction.all("claim_jobs", parameters)
    if ALL_ROUTES in held:
        return []
    return transaction.all("claim_unpaused_jobs", {**parameters, "paused": sorted(held)})


def promote(transaction: Transaction) -> None:
    """Queue delayed jobs that are due, at their old positions; a suspect only while no other suspect is queued or running.

    Jobs of paused routes are queued as well, except suspects, which would hold up the suspects of other routes.
    """
    counters = transaction.counters
    transaction.refresh()
    changed = transaction.change("promote_delayed", (transaction.now,)) if counters.delayed or counters.scheduled else 0
    if counters.suspects:
        changed += transaction.change("delete_ended_suspects")
        if held := held_routes(transaction):
            parameters = {"now": transaction.now, "paused": sorted(held)}
            changed += transaction.change("delay_paused_suspects", parameters)
            changed += transaction.change("promote_unpaused_suspect", parameters)
        else:
            changed += transaction.change("promote_suspect", (transaction.now,))
    if changed:
        counters.invalidate()
        transaction.refresh()


def policy_of(max_attempts: int, retries: str | None) -> RetryPolicy:
    """The retry policy in the columns of a job."""
    return RetryPolicy(max_attempts, _retries.decode(retries) if retries else {})


# --- ending an attempt


def append(transaction: Transaction, batch: Sequence[tuple[Claim, int, bytes]]) -> list[bool]:
    """Store chunks of responses that are still being produced."""
    return [
        transaction.change("append_response_chunk", {"key": claim.key, "token": claim.token, "number": number, "data": data})
        > 0
        for claim, number, data in batch
    ]


def finish(transaction: Transaction, batch: Sequence[EndedAttempt]) -> list[bool]:
    """End jobs with a response or a failure: result, state and webhook are written in one transaction."""
    results, held = end(transaction, batch)
    insert_deliveries(transaction, [(ended[0], ended[2]) for ended in held])
    return results


def end(transaction: Transaction, batch: Sequence[EndedAttempt]) -> tuple[list[bool], Sequence[EndedAttempt]]:
    """`finish` without the webhooks. Also returns the attempts whose claims were held: their webhooks are to be created."""
    if transaction.keep is not None:
        keeping.end_running(transaction, [(key, token, outcome) for key, token, _, outcome, _ in batch])
    held = _end_held(transaction, batch)
    if len(held) == len(batch):
        _store_outcomes(transaction, batch)
        return [True] * len(batch), batch
    claims = {row[:2] for row in held}
    ended_now = [ended for ended in batch if ended[:2] in claims]
    _store_outcomes(transaction, ended_now)
    return [ended[:2] in claims or _has_finished(transaction, ended) for ended in batch], ended_now


def fail(transaction: Transaction, batch: Sequence[EndedAttempt]) -> list[bool]:
    """Like `finish`, for failures only. It is an operation of its own because deleting stored response chunks may take long."""
    return finish(transaction, batch)


def _has_finished(transaction: Transaction, ended: EndedAttempt) -> bool:
    """Whether this claim has ended its job before, so that the present write is a repetition."""
    row = transaction.one("is_finished_by", ended[:2])
    return row is not None and bool(row[0])


def _store_outcomes(transaction: Transaction, batch: Sequence[EndedAttempt]) -> None:
    if not batch:
        return
    for key, _, _, outcome, has_chunks in batch:
        if isinstance(outcome, Failure):
            transaction.change("delete_response_chunks", (key,))
            transaction.change("delete_request", (key,))
        else:
            put_response(transaction, key, outcome)
        if has_chunks:
            transaction.change("delete_request_chunks", (key,))
    notify_next_suspect(transaction)


def _end_held(transaction: Transaction, batch: Sequence[EndedAttempt]) -> Sequence[tuple[Any, ...]]:
    """Write the final states. Returns a row, which begins with key and token, for each claim that was held."""
    completed = [(key, token, outcome.status) for key, token, _, outcome, _ in batch if isinstance(outcome, StoredResponse)]
    if len(completed) == len(batch):  # as a rule
        return transaction.held("complete_jobs", completed, (transaction.now,))
    rows = [_outcome_row(transaction, key, token, outcome) for key, token, _, outcome, _ in batch]
    return transaction.held("finish_jobs", rows)


def _outcome_row(transaction: Transaction, key: int, token: int, outcome: StoredResponse | Failure) -> tuple[Any, ...]:
    if isinstance(outcome, StoredResponse):
        return key, token, JobState.COMPLETED, transaction.now, outcome.status, None, None
    return key, token, end_state(outcome), transaction.now, None, outcome.error_type, clean(outcome.detail)


def end_state(failure: Failure) -> JobState:
    """The final state of a job that ends with this failure."""
    return JobState.CANCELLED if failure.error_type is ErrorType.CLIENT_CANCELLED else JobState.FAILED


def end_of(outcome: StoredResponse | Failure) -> AttemptEnd:
    """The end of an attempt that ended its job like this."""
    if isinstance(outcome, StoredResponse):
        return AttemptEnd(JobState.COMPLETED, outcome.status)
    return AttemptEnd(end_state(outcome), error=outcome.error_type)


def finish_with_early_result(
    transaction: Transaction, key: int, token: int, webhook: str | None
) -> StoredResponse | Failure | None:
    """End the job with the external result that arrived during its attempt; None if none has arrived."""
    early = task_rows.early_result(transaction, key)
    if early is None:
        return None
    source, result = early
    transaction.change("delete_response_chunks", (key,))  # the external result replaces the response of the call
    outcome = result.failure or result.response
    finish(transaction, [(key, token, webhook, outcome, True)])
    task_rows.put_external_result(transaction, key, source, result)
    transaction.counters.end_task()
    return outcome


def insert_deliveries(transaction: Transaction, ended: Sequence[tuple[int, str | None]]) -> None:
    """Make the webhooks of ended jobs due. `ended`: key and webhook URL of each job."""
    deliveries = [(key, webhook, receiver_host(webhook), transaction.now) for key, webhook in ended if webhook is not None]
    if deliveries:
        transaction.rows("insert_deliveries", deliveries)
        transaction.topics.add(Topic.DELIVERY)


def notify_next_suspect(transaction: Transaction) -> None:
    """Notify the workers after the end of a job: if it was a suspect, the next suspect may run."""
    if transaction.counters.suspects:
        transaction.topics.add(Topic.WORK)


# --- ending a job that is not running


def cancel(transaction: Transaction, batch: Sequence[str]) -> list[CancelOutcome | QueueError]:
    """Cancel jobs that are not running; request the cancellation of running ones."""
    return [_cancel(transaction, request_id) for request_id in batch]


def _cancel(transaction: Transaction, request_id: str) -> CancelOutcome | QueueError:
    first, tail = parse_request_id(request_id)
    row = transaction.one("find_job", {"first": first, "tail": tail})
    if row is None:
        return UnknownRequest(f"there is no request {request_id}")
    key, state = row
    if state in FINAL:
        return CancelOutcome.FINISHED
    if state == JobState.RUNNING:
        transaction.change("request_cancellation", (key,))
        transaction.topics.add(Topic.CANCEL)
        return CancelOutcome.RUNNING
    end_not_running(transaction, [key], CANCELLED)
    if state == JobState.AWAITING:
        task_rows.end_wait(transaction, key)
    return CancelOutcome.CANCELLED


def expire(transaction: Transaction, batch: Sequence[None]) -> list[list[RescuedJob]]:
    """Fail queued and delayed jobs whose start deadline has passed."""
    overdue = within_bounds(transaction.all("overdue_jobs", {"now": transaction.now, "chunk": CHUNK_SIZE}))
    end_not_running(transaction, [key for key, _ in overdue], OVERDUE)
    return [[RescuedJob(format_request_id(key, tail), JobState.FAILED) for key, tail in overdue] for _ in batch]


def end_not_running(transaction: Transaction, keys: Sequence[int], failure: Failure) -> None:
    """End jobs that are queued, delayed or awaiting an external service."""
    keeping.end_not_running(transaction, keys, failure)
    columns = (end_state(failure), transaction.now, failure.error_type, failure.detail, list(keys))
    ended = transaction.all("end_not_running", columns)
    if ended:
        notify_next_suspect(transaction)
        transaction.counters.invalidate()
        for key, _ in ended:
            transaction.change("delete_request", (key,))
            transaction.change("delete_request_chunks", (key,))
        insert_deliveries(transaction, ended)
