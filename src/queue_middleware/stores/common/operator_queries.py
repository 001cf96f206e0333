"""Reads what operators see of one request, on a reading connection."""

from __future__ import annotations

from queue_middleware.errors import UnknownRequest
from queue_middleware.jobs.ids import format_request_id, parse_request_id
from queue_middleware.jobs.job_detail import JobDetail
from queue_middleware.jobs.models import CHUNK_SIZE
from queue_middleware.webhooks.models import receiver_host

from .copies import copies_of
from .job_row import job_of
from .transaction import Queries

_JOB_COLUMNS = 14


def detail(queries: Queries, request_id: str, now: int) -> JobDetail:
    """One request without its body and headers. Raises `UnknownRequest`, `BadRequest`."""
    first, tail = parse_request_id(request_id)
    row = queries.one("job_detail", {"first": first, "tail": tail, "chunk": CHUNK_SIZE, "now": now})
    if row is None:
        raise UnknownRequest(f"there is no request {request_id}")
    job, submitted, present = row[:_JOB_COLUMNS], row[_JOB_COLUMNS : _JOB_COLUMNS + 7], row[_JOB_COLUMNS + 7 :]
    method, route, priority, max_attempts, due_at, start_by, webhook = submitted
    cancelling, owner, request_bytes, response_bytes, log_lines, kept_until, original, original_tail = present
    return JobDetail(
        job=job_of(*job),
        method=method,
        route=route,
        priority=priority,
        max_attempts=max_attempts,
        due_at=due_at,
        start_by=start_by,
        webhook_host=None if webhook is None else receiver_host(webhook),
        is_cancelling=bool(cancelling),
        process=owner,
        request_bytes=request_bytes,
        response_bytes=response_bytes,
        log_lines=log_lines,
        kept_until=kept_until,
        original=None if original is None else format_request_id(original, original_tail),
        copies=copies_of(queries, job[0], tail),
    )
