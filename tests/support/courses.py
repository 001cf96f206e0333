"""The unusual course of a job, which serves everything, in place of the plain one with its shortcuts for common jobs.

A test with the fixture `course` runs with both, `pytest --course unusual` runs all others with the unusual one. A shortcut that
is added to the package needs a line in `take_unusual_course`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any

import pytest

from queue_middleware.jobs.models import NewJob
from queue_middleware.outbound import http11, http_head
from queue_middleware.runtime import runtime
from queue_middleware.stores.common import jobs
from queue_middleware.stores.common.job_store import CommonJobStore
from queue_middleware.stores.common.transaction import Transaction
from queue_middleware.stores.common.webhook_store import CommonWebhookStore
from queue_middleware.web import router
from queue_middleware.web.fal import submit
from queue_middleware.worker import context, executor
from queue_middleware.worker.job_context import ActiveJob, activate

NO_LIMIT = 10**9
"""A value of `max_queue_length` that no queue reaches. A job with any value is not plain."""


def take_unusual_course(patch: pytest.MonkeyPatch) -> None:
    """Let no job take a shortcut until `patch` is undone."""
    patch.setattr(CommonJobStore, "submit", _with_limit(CommonJobStore.submit))
    patch.setattr(CommonWebhookStore, "reserve", lambda *arguments: None)  # all webhooks wait for the dispatcher's claim
    patch.setattr(jobs, "_end_held", _end_held_by_general_statement)
    patch.setattr(executor, "activate", _activate_with_log)
    for module in (runtime, context):  # all events are built
        patch.setattr(module, "is_observed", lambda emit, kind: True)
    patch.setattr(router, "_MAX_REMEMBERED_PATH", 0)
    patch.setattr(submit, "_MAX_CACHED_PATH", 0)
    patch.setattr(http_head.Request, "encode", lambda request, length: None)  # h11 writes and reads all heads
    patch.setattr(http11, "parse_response_head", lambda data: None)


def _with_limit(call: Any) -> Any:
    """Submit each job with a limit for the queue's length: a job without one may be stored by `insert_started_jobs`."""

    @wraps(call)
    def submit_with_limit(store: CommonJobStore, new: NewJob, **options: Any) -> Any:
        return call(store, new if new.max_queue_length is not None else new.replace(max_queue_length=NO_LIMIT), **options)

    return submit_with_limit


def _end_held_by_general_statement(transaction: Transaction, batch: Sequence[jobs.EndedAttempt]) -> Sequence[tuple[Any, ...]]:
    """End all attempts as a transaction does that contains a failure: otherwise responses are stored by `complete_jobs`."""
    rows = [jobs._outcome_row(transaction, key, token, outcome) for key, token, _, outcome, _ in batch]
    return transaction.held("finish_jobs", rows)


def _activate_with_log(job: ActiveJob) -> Any:
    """Begin each attempt as one that has logged: an attempt without a log buffer commits without a task of its own."""
    token = activate(job)
    job.log_buffer()
    return token
