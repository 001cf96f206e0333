"""Finds the jobs that earlier submissions with the same idempotency key have created."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from queue_middleware.errors import IdempotencyKeyReused, QueueError
from queue_middleware.jobs.idempotency import IdempotencyKey
from queue_middleware.jobs.models import ExistingJob, JobState, SubmitResult

from .job_row import job_of
from .task_rows import tasks
from .transaction import Transaction

_SERVER_ERROR = 500
"""The smallest status of a response with which a request counts as failed."""


class Duplicate(msgspec.Struct, frozen=True):
    """The result of a repeated submission until its batch is written; `read_existing` replaces it by the present state."""

    job_key: int


class BatchKeys:
    """The idempotency keys of a batch of submissions, which are stored with the rows of their jobs."""

    __slots__ = ("_new",)

    def __init__(self) -> None:
        self._new: dict[tuple[str, str], tuple[bytes, int]] = {}

    def add(self, key: IdempotencyKey, job_key: int) -> None:
        """Note that this job is created with the key."""
        self._new[key.scope, key.key] = key.fingerprint, job_key

    def find(self, transaction: Transaction, key: IdempotencyKey, *, retry_failed: bool) -> Duplicate | QueueError | None:
        """The job that was created with the key, or an error if its request was another one; None if the key is free.

        With `retry_failed` the key of a failed job is free for the same request.
        """
        own = self._new.get((key.scope, key.key))
        if own is None:
            row = transaction.one("idempotency_key", (key.scope, key.key))
            if row is None:
                return None
            known, job_key, state, status = row
        else:
            (known, job_key), state, status = own, None, None
        if known != key.fingerprint:
            return IdempotencyKeyReused(
                f"the Idempotency-Key {key.key[:64]!r} was sent before with another request (its method, path, query or body "
                "is different); send a new key for a new request"
            )
        if retry_failed and (state == JobState.FAILED or (status is not None and status >= _SERVER_ERROR)):
            return None
        return Duplicate(job_key)

    def insert(self, transaction: Transaction) -> None:
        """Store the new keys. A key whose failed job was submitted again names the new job from now on."""
        if self._new:
            rows = [(job_key, *name, known) for name, (known, job_key) in self._new.items()]
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
