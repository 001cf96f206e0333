"""The requests that operators can submit again: of jobs that have not ended, and those that were kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from queue_middleware.errors import NotKept, QueueError, UnknownRequest
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


def kept_request(queries: Queries, request_id: str, now: int) -> KeptRequest:
    """The request of a job that has not ended, or that was kept. Raises `NotKept`, `UnknownRequest`, `BadRequest`."""
    first, tail = parse_request_id(request_id)
    with queries.snapshot():
        row = queries.one("submitted_job", {"first": first, "tail": tail})
        if row is None:
            raise UnknownRequest(f"there is no request {request_id}")
        key, state, priority, client, max_attempts, retries, webhook, kinds, unstored, route, secrets = row
        stored = _payload(queries, key) if state in _WITH_REQUEST else queries.one("kept_request", {"key": key, "now": now})
        if stored is None:
            raise _not_kept(request_id)
        head, body, chunks, kept_secrets, kept_until = stored
        request = _request(queries, request_id, (key, head, body, chunks))
        task = _task(queries, key, secrets or kept_secrets)
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
        kept_until,
    )


def kept_requests(queries: Queries, request_ids: Sequence[str], now: int) -> list[KeptRequest | QueueError]:
    """The same for several; an error takes the place of a request that cannot be returned."""
    found: list[KeptRequest | QueueError] = []
    for request_id in request_ids:
        try:
            found.append(kept_request(queries, request_id, now))
        except QueueError as error:
            found.append(error)
    return found


def _payload(queries: Queries, key: int) -> tuple[Any, ...]:
    """The columns of a kept request, for a job whose payload is its request."""
    ((_, head, body, chunks),) = queries.all("payloads", ([key],))
    return head, body, chunks, None, None


def _request(queries: Queries, request_id: str, stored: tuple[int, bytes, bytes, int]) -> StoredRequest:
    key, head, body, chunks = stored
    if chunks:
        rows = queries.all("request_chunks", (key,))
        if len(rows) < chunks:  # retention is deleting them
            raise _not_kept(request_id)
        body = b"".join((body, *(row[0] for row in rows)))
    try:
        return decode_request(head, body)
    except msgspec.DecodeError:
        raise NotKept(f"the request {request_id} cannot be read by this release") from None


def _task(queries: Queries, key: int, secrets: bytes | None) -> Task | None:
    """The task of a job as it was submitted: `secrets` are the headers of its polls, which are stored apart."""
    rows = queries.all("tasks", ([key],))
    if not rows:
        return None
    task = task_of(rows[0][1:])
    if secrets is None or task.spec.poll is None:
        return task
    return task.replace(spec=task.spec.replace(poll=task.spec.poll.replace(headers=decode_secrets(secrets))))


def _not_kept(request_id: str) -> NotKept:
    return NotKept(f"the request {request_id} is not stored any more (option keep_requests)")
