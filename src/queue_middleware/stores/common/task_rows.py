"""The rows of a task beside its job: its specification, and a final result that arrived during an attempt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from queue_middleware.jobs.models import CHUNK_SIZE, ErrorType, Failure, JobState, NewJob, StoredResponse
from queue_middleware.jobs.task_spec import Task
from queue_middleware.tasks.models import CompletionSource, ExternalResult
from queue_middleware.tasks.polling.config import without_secrets

from .codec import clean, cut, decode_headers, decode_spec, encode, encode_headers, encode_secrets
from .transaction import Transaction

LISTED = 2
"""In the column `task` of a job: one that its owner made as a task."""


def put_task(transaction: Transaction, key: int, new: NewJob) -> None:
    """Beside a job that was stored a moment ago; one with a time of its own is put off until then."""
    assert new.task is not None  # noqa: S101
    put(transaction, key, new.task, new.client)
    if is_put_off(transaction, new):
        transaction.change("put_off", (new.due_at, key))


def is_put_off(transaction: Transaction, new: NewJob) -> bool:
    """Whether it waits for a time of its own, and not for its turn."""
    return new.due_at is not None and new.due_at > transaction.now


def put(transaction: Transaction, key: int, task: Task, client: str) -> bool:
    """Insert the row of a task if the job has none; returns whether it was inserted."""
    spec = task.spec
    awaits = "callback" if spec.callback or spec.signal else "poll" if spec.poll else "nothing"
    lister = client if task.is_listed else None
    secrets = encode_secrets(spec.poll.headers) if spec.poll is not None and spec.poll.headers else None
    if secrets is not None and spec.poll is not None:
        spec = spec.replace(poll=without_secrets(spec.poll))
    if transaction.change(
        "insert_task", (key, encode(spec), task.salt, task.callback_hash, task.signal_hash, lister, awaits, secrets)
    ):
        transaction.change("mark_task", (LISTED if task.is_listed else 1, key))
        return True
    return False


def tasks(transaction: Transaction, keys: Collection[int]) -> dict[int, Task]:
    """The tasks of these jobs, by key."""
    if not keys:
        return {}
    return {row[0]: task(row[1:]) for row in transaction.all("tasks", (list(keys),))}


def task(row: Sequence[Any]) -> Task:
    """From the columns spec, salt, callback, signal, client."""
    spec, salt, callback, signal, client = row
    return Task(decode_spec(spec), salt, callback, signal, client is not None)


def wait_no_longer(transaction: Transaction, key: int) -> None:
    """Of a job that waited and has ended: no time, no poll, no credentials for one, and nothing of the call's answer."""
    transaction.change("wait_no_longer", (key,))
    transaction.change("drop_response_parts", (key,))


def state(transaction: Transaction, key: int) -> JobState:
    """Of a job that there is."""
    row = transaction.one("state", (key,))
    assert row is not None  # noqa: S101
    return JobState(row[0])


# --- last words


def keep_early(transaction: Transaction, key: int, channel: CompletionSource, resolution: ExternalResult) -> None:
    """Until the attempt has ended."""
    response, failure = resolution.response, resolution.failure
    transaction.change(
        "put_early",
        (
            key,
            channel,
            response.status,
            encode_headers(response.headers),
            response.body,
            failure.error_type if failure else None,
            clean(failure.detail) if failure else None,
        ),
    )


def early_channel(transaction: Transaction, key: int) -> CompletionSource | None:
    """By which way a last word came early, if one did."""
    row = transaction.one("early_channel", (key,))
    return CompletionSource(row[0]) if row else None


def early(transaction: Transaction, key: int) -> tuple[CompletionSource, ExternalResult] | None:
    """The last word that came early, if one did."""
    row = transaction.one("early", (key,))
    if row is None:
        return None
    channel, status, head, body, error_type, error = row
    failure = Failure(ErrorType(error_type), error) if error_type else None
    return CompletionSource(channel), ExternalResult(StoredResponse(status, decode_headers(head), body), failure)


def put_response(transaction: Transaction, key: int, response: StoredResponse) -> None:
    """Store a response. A long one that arrived as a whole is cut into chunks, so that it need not be read as a whole."""
    rest, count = response.body, response.chunks
    if len(rest) > CHUNK_SIZE and not count:
        *parts, rest = cut(rest)
        count = len(parts)
        transaction.change("drop_response_parts", (key,))
        rows = [(key, number, data) for number, data in enumerate(parts)]
        transaction.rows("insert_response_parts", rows)
    transaction.payloads.append((key, encode_headers(response.headers), rest, count))


def put_word(transaction: Transaction, key: int, channel: CompletionSource, resolution: ExternalResult) -> None:
    """Store what completed a job; for a failure, the message of the external service is stored as well."""
    if resolution.failure is not None:
        put_response(transaction, key, resolution.response)
    transaction.change("resolved_by", (channel, key))
    transaction.change("drop_early", (key,))
