"""Reads tasks on a reading connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_middleware.errors import UnknownRequest
from queue_middleware.jobs.ids import format_request_id, parse_request_id
from queue_middleware.jobs.models import JobState, StoredResponse
from queue_middleware.tasks.models import CompletionSource, PendingJob, SecretIdKind, TaskPage, TaskRecord, TaskStatus

from .codec import decode_headers, decode_spec
from .job_row import job_of
from .task_rows import task_of
from .transaction import Queries

_BLOCKS = {SecretIdKind.CALLBACK: "task_by_callback", SecretIdKind.SIGNAL: "task_by_signal"}


def find(queries: Queries, kind: SecretIdKind, digest: bytes) -> PendingJob:
    """The job whose secret id of this kind has this hash."""
    row = queries.one(_BLOCKS[kind], (digest,))
    if row is None:
        raise UnknownRequest("there is no such id")
    key, tail, state, *columns, resolved_by = row
    source = None if resolved_by is None else CompletionSource(resolved_by)
    return PendingJob(key, format_request_id(key, tail), JobState(state), task_of(columns), source)


def record(queries: Queries, request_id: str) -> TaskRecord:
    """One task with its response."""
    first, tail = parse_request_id(request_id)
    row = queries.one("task_record", {"first": first, "tail": tail})
    if row is None:
        raise UnknownRequest(f"there is no task {request_id}")
    *columns, head, body, chunks = row
    found = _record(columns)
    if head is None:
        return found
    # The message of an external service has no status of its own: it arrived as a request to this service.
    return found.replace(response=StoredResponse(found.job.status or 200, decode_headers(head), body, chunks))


def page(queries: Queries, client: str, status: TaskStatus | None, limit: int, offset: int) -> TaskPage:
    """A page of one client's tasks, and how many there are."""
    selection: dict[str, Any] = {"client": client} if status is None else {"client": client, "status": status}
    listing, counting = ("task_page", "count_tasks") if status is None else ("task_page_of_status", "count_tasks_of_status")
    rows = queries.all(listing, {**selection, "limit": limit, "offset": offset})
    counted = queries.one(counting, selection)
    return TaskPage([_record(row) for row in rows], counted[0] if counted else 0)


def has_timed_out_tasks(queries: Queries, now: int) -> bool:
    """Whether the wait of a task has timed out."""
    return queries.one("timed_out_tasks", {"now": now}) is not None


def _record(row: Sequence[Any]) -> TaskRecord:
    spec, priority, max_attempts, due_at, webhook, resolved_by, event, status = row[12:]
    return TaskRecord(
        job=job_of(*row[:12]),
        spec=decode_spec(spec),
        status=TaskStatus(status),
        priority=priority,
        max_attempts=max_attempts,
        due_at=due_at,
        webhook=webhook,
        resolved_by=None if resolved_by is None else CompletionSource(resolved_by),
        last_status=event,
    )
