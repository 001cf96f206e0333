"""The requests that operators can submit again: of jobs that have not ended, and those that were kept."""

from __future__ import annotations

from queue_middleware.errors import NotKept, UnknownRequest
from queue_middleware.jobs.ids import parse_request_id
from queue_middleware.jobs.job_detail import KeptRequest
from queue_middleware.jobs.models import JobState, NewJob, StoredRequest
from queue_middleware.jobs.task_spec import Task

from .codec import decode_request, decode_secrets, decode_webhook_kinds
from .jobs import policy_of
from .task_rows import task_of
from .transaction import Queries

_WITH_REQUEST = frozenset({JobState.QUEUED, JobState.DELAYED, JobState.RUNNING})
"""States in which the payload of a job is its request."""


def kept_request(queries: Queries, request_id: str) -> KeptRequest:
    """The request of a job that has not ended. Raises `NotKept`, `UnknownRequest`, `BadRequest`."""
    first, tail = parse_request_id(request_id)
    with queries.snapshot():
        row = queries.one("submitted_job", {"first": first, "tail": tail})
        if row is None:
            raise UnknownRequest(f"there is no request {request_id}")
        key, state, priority, client, max_attempts, retries, webhook, kinds, unstored, route, secrets = row
        if state not in _WITH_REQUEST:
            raise NotKept(f"the request {request_id} is not kept")
        request = _request(queries, key)
        task = _task(queries, key, secrets)
    policy = policy_of(max_attempts, retries)
    return KeptRequest(
        NewJob(
            request,
            client,
            policy if task is None else policy.replace(backoff=task.spec.backoff),
            priority,
            webhook=webhook,
            unstored_response=bool(unstored),
            task=task,
            webhook_kinds=() if kinds is None else decode_webhook_kinds(kinds),
            route=route,
        ),
        None,
    )


def _request(queries: Queries, key: int) -> StoredRequest:
    ((_, head, body, chunks),) = queries.all("payloads", ([key],))
    if chunks:
        body = b"".join((body, *(row[0] for row in queries.all("request_chunks", (key,)))))
    return decode_request(head, body)


def _task(queries: Queries, key: int, secrets: bytes | None) -> Task | None:
    """The task of a job as it was submitted: `secrets` are the headers of its polls, which are stored apart."""
    rows = queries.all("tasks", ([key],))
    if not rows:
        return None
    task = task_of(rows[0][1:])
    if secrets is None or task.spec.poll is None:
        return task
    return task.replace(spec=task.spec.replace(poll=task.spec.poll.replace(headers=decode_secrets(secrets))))
