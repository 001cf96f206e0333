"""Finds the jobs that earlier submissions with the same idempotency key have created."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from queue_middleware.errors import IdempotencyKeyReused, QueueError
from queue_middleware.jobs.idempotency import IdempotencyKey
from queue_middleware.jobs.models import ExistingJob, JobState, NewJob, SubmitResult

from .job_row import job_of
from .task_rows import tasks
from .transaction import Transaction

_SERVER_ERROR = 500
"""The smallest status of a response with which a request counts as failed."""


_Keys = dict[tuple[str, str], tuple[bytes, int, str | None, int | None]]
"""By scope and key: fingerprint and job, with the state and the status of a job that is stored."""


class Duplicate(msgspec.Struct, frozen=True):
    """The result of a repeated submission until its batch is written; `read_existing` replaces it by the present state."""

    job_key: int


class BatchKeys:
    """The idempotency keys of a batch of submissions. They are read together, and stored with the rows of their jobs."""

    __slots__ = ("_new", "_stored", "_submissions")

    def __init__(self, submissions: Sequence[tuple[NewJob, Any, Any, Any]]) -> None:
        self._submissions = submissions
        self._stored: _Keys | None = None
        self._new: _Keys = {}

    def add(self, key: IdempotencyKey, job_key: int) -> None:
        """Note that this job is created with the key."""
        self._new[key.scope, key.key] = key.fingerprint, job_key, None, None

    def find(self, transaction: Transaction, key: IdempotencyKey, *, retry_failed: bool) -> Duplicate | QueueError | None:
        """The job that was created with the key, or an error if its request was another one; None if the key is free.

        With `retry_failed` the key of a failed job is free for the same request.
        """
        if self._stored is None:
            self._stored = self._read(transaction)
        name = key.scope, key.key
        found = self._new.get(name) or self._stored.get(name)
        if found is None:
            return None
        known, job_key, state, status = found
        if known != key.fingerprint:
            return IdempotencyKeyReused(
                f"the Idempotency-Key {key.key[:64]!r} was sent before with another request (its method, path, query, body, or "
                "a header that this service compares, is different); send a new key for a new request"
            )
        if retry_failed and (state == JobState.FAILED or (status is not None and status >= _SERVER_ERROR)):
            return None
        return Duplicate(job_key)

    def _read(self, transaction: Transaction) -> _Keys:
        keys = [new.idempotency_key for new, *_ in self._submissions]
        rows = transaction.all("idempotency_keys", ([(key.scope, key.key) for key in keys if key is not None],))
        return {(scope, key): (known, job_key, state, status) for scope, key, known, job_key, state, status in rows}

    def insert(self, transaction: Transaction) -> None:
        """Store the new keys. A key whose failed job was submitted again names the new job from now on."""
        if self._new:
            rows = [(job_key, *name, known) for name, (known, job_key, _, _) in self._new.items()]
            transaction.rows("put_idempotency_keys", rows)


def read_existing(transaction: Transaction, results: Sequence[Any]) -> list[SubmitResult | QueueError]:
    """Replace each `Duplicate` by the job as it is now. Call it when all rows of the batch are written."""
    keys = list({result.job_key for result in results if type(result) is Duplicate})
    jobs = {row[0]: job_of(*row[:-1]) for row in transaction.all("snapshots", {"keys": keys, "positions": True})}
    stored_tasks = tasks(transaction, keys)
    existing = {
        key: SubmitResult(job.request_id, job.position or 0, existing=ExistingJob(job, stored_tasks.get(key)))
        for key, job in jobs.items()
    }
    return [existing[result.job_key] if type(result) is Duplicate else result for result in results]
