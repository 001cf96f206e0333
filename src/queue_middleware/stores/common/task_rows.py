"""The rows that a task has in addition to its job: its specification, its wait, and a result that arrived early."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from queue_middleware.jobs.models import ErrorType, Failure, NewJob, StoredResponse
from queue_middleware.jobs.task_spec import Task
from queue_middleware.tasks.models import CompletionSource, ExternalResult
from queue_middleware.tasks.polling.config import without_secrets

from .codec import clean, decode_headers, decode_spec, encode, encode_headers, encode_secrets
from .responses import put_response
from .transaction import Transaction

LISTED = 2
"""The value of the column `job.task` of a job that was submitted as a task, so that its client can list it."""


def insert_submitted_task(transaction: Transaction, key: int, new: NewJob) -> None:
    """Insert the task of a new job, and delay the job if it has a start time."""
    assert new.task is not None  # noqa: S101
    insert_task(transaction, key, new.task, new.client)
    if is_scheduled(transaction, new):
        transaction.change("schedule_job", (new.due_at, key))


def is_scheduled(transaction: Transaction, new: NewJob) -> bool:
    """Whether a new job has a start time in the future, so that it is not queued."""
    return new.due_at is not None and new.due_at > transaction.now


def insert_task(transaction: Transaction, key: int, task: Task, client: str) -> bool:
    """Insert the row of a task if the job has none; returns whether it was inserted."""
    spec = task.spec
    awaits = "callback" if spec.callback or spec.signal else "poll" if spec.poll else "nothing"
    listed_for = client if task.is_listed else None
    secrets = encode_secrets(spec.poll.headers) if spec.poll is not None and spec.poll.headers else None
    if secrets is not None and spec.poll is not None:
        spec = spec.replace(poll=without_secrets(spec.poll))
    if transaction.change(
        "insert_task", (key, encode(spec), task.salt, task.callback_hash, task.signal_hash, listed_for, awaits, secrets)
    ):
        transaction.change("mark_task", (LISTED if task.is_listed else 1, key))
        return True
    return False


def tasks(transaction: Transaction, keys: Collection[int]) -> dict[int, Task]:
    """The tasks of these jobs, by key."""
    if not keys:
        return {}
    return {row[0]: task_of(row[1:]) for row in transaction.all("tasks", (list(keys),))}


def task_of(row: Sequence[Any]) -> Task:
    """A task from the columns spec, salt, callback, signal, client."""
    spec, salt, callback, signal, client = row
    return Task(decode_spec(spec), salt, callback, signal, client is not None)


def end_wait(transaction: Transaction, key: int) -> None:
    """End the wait of a job that has ended: delete its deadline, poll, credentials and the chunks of the call's response."""
    transaction.change("end_wait", (key,))
    transaction.change("delete_response_chunks", (key,))


# --- external results


def insert_early_result(transaction: Transaction, key: int, source: CompletionSource, result: ExternalResult) -> None:
    """Keep an external result until the running attempt has ended."""
    response, failure = result.response, result.failure
    transaction.change(
        "insert_early_result",
        (
            key,
            source,
            response.status,
            encode_headers(response.headers),
            response.body,
            failure.error_type if failure else None,
            clean(failure.detail) if failure else None,
        ),
    )


def early_result_source(transaction: Transaction, key: int) -> CompletionSource | None:
    """The source of the external result that arrived during the attempt; None if none has arrived."""
    row = transaction.one("early_result_source", (key,))
    return CompletionSource(row[0]) if row else None


def early_result(transaction: Transaction, key: int) -> tuple[CompletionSource, ExternalResult] | None:
    """The external result that arrived during the attempt, with its source; None if none has arrived."""
    row = transaction.one("early_result", (key,))
    if row is None:
        return None
    source, status, head, body, error_type, error = row
    failure = Failure(ErrorType(error_type), error) if error_type else None
    return CompletionSource(source), ExternalResult(StoredResponse(status, decode_headers(head), body), failure)


def put_external_result(transaction: Transaction, key: int, source: CompletionSource, result: ExternalResult) -> None:
    """Store the source of the result that ended a job and, if the job failed, the message of the external service."""
    if result.failure is not None:
        put_response(transaction, key, result.response)
    transaction.change("set_resolved_by", (source, key))
    transaction.change("delete_early_result", (key,))
