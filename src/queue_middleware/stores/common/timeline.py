"""Puts the timeline of one request together, from the rows that its history has left."""

from __future__ import annotations

from typing import Any

from queue_middleware.jobs.attempts import AttemptRecord
from queue_middleware.jobs.ids import request_time
from queue_middleware.jobs.job_detail import JobDetail
from queue_middleware.jobs.outcomes import run_time
from queue_middleware.jobs.states import FINAL, IN_QUEUE
from queue_middleware.jobs.timeline import TimelineEntry, TimelineKind

from .attempts import attempts
from .operator_queries import detail
from .transaction import Queries

_MAX_DELIVERY_ATTEMPTS = 500


def timeline(queries: Queries, request_id: str, now: int) -> list[TimelineEntry]:
    """What happened to a request, in order of time. Raises `UnknownRequest`, `BadRequest`."""
    with queries.snapshot():
        found = detail(queries, request_id, now)
        key = found.job.key
        records = attempts(queries, key)
        wait = queries.one("task_wait", (key,))
        sent = queries.all("attempts_of_deliveries", {"key": key, "limit": _MAX_DELIVERY_ATTEMPTS})
        acts = queries.all("acts_on_request", (found.job.request_id,))
    entries = _in_order([_submitted(found), *_attempts(found, records), *_wait(wait), *_end(found)])
    entries += [_delivery_attempt(*row) for row in reversed(sent)]
    entries += [TimelineEntry(request_time(copy), TimelineKind.COPIED, {"copy": copy}) for copy in found.copies]
    entries += [
        TimelineEntry(at, TimelineKind.OPERATED, {"operator": operator, "action": action, "count": count})
        for at, operator, action, count in acts
    ]
    return sorted(entries, key=lambda entry: entry.at)


def _in_order(entries: list[TimelineEntry]) -> list[TimelineEntry]:
    """The same entries, none earlier than the one before it: the clock may have been set back between them."""
    ordered: list[TimelineEntry] = []
    for entry in entries:
        least = ordered[-1].at if ordered else entry.at
        ordered.append(entry if entry.at >= least else entry.replace(at=least))
    return ordered


def _submitted(found: JobDetail) -> TimelineEntry:
    data: dict[str, Any] = {
        "client": found.job.client,
        "method": found.method,
        "route": found.route,
        "priority": found.priority,
        "bytes": found.request_bytes,
        "original": found.original,
    }
    return TimelineEntry(found.job.created_at, TimelineKind.SUBMITTED, data)


def _attempts(found: JobDetail, records: list[AttemptRecord]) -> list[TimelineEntry]:
    entries: list[TimelineEntry] = []
    before = found.job.created_at
    for record in records:
        entries.append(_attempt_started(record.number, record.started_at, record.owner, before))
        data = {
            "attempt": record.number,
            "ending": record.ending.value,
            "status": record.status,
            "detail": record.detail,
            "seconds": _seconds(record.started_at, record.ended_at),
        }
        entries.append(TimelineEntry(record.ended_at, TimelineKind.ATTEMPT_ENDED, data))
        before = record.ended_at
    if found.job.started_at is not None and not _is_recorded(found, records):
        entries.append(_attempt_started(found.job.attempt, found.job.started_at, found.process, before))
    return entries


def _is_recorded(found: JobDetail, records: list[AttemptRecord]) -> bool:
    """Whether the attempt of the job's row has a record, because the job has not been started again since."""
    job = found.job
    if job.state in IN_QUEUE:
        return True
    if job.state not in FINAL or not records:
        return False
    return records[-1].started_at == job.started_at and records[-1].number >= job.attempt


def _attempt_started(number: int, started_at: int, owner: str | None, before: int) -> TimelineEntry:
    data = {"attempt": number, "process": owner, "waited": _seconds(before, started_at)}
    return TimelineEntry(started_at, TimelineKind.ATTEMPT_STARTED, data)


def _wait(row: tuple[Any, ...] | None) -> list[TimelineEntry]:
    return [] if row is None else [TimelineEntry(row[0], TimelineKind.AWAITING, {"status": row[1]})]


def _end(found: JobDetail) -> list[TimelineEntry]:
    job = found.job
    if job.finished_at is None:
        return []
    duration = run_time(job)
    data: dict[str, Any] = {
        "state": job.state.value,
        "status": job.status,
        "error_type": None if job.failure is None else job.failure.error_type.value,
        "detail": None if job.failure is None else job.failure.detail,
        "bytes": found.response_bytes,
        "seconds": None if duration is None else duration / 1000,
    }
    return [TimelineEntry(job.finished_at, TimelineKind.ENDED, data)]


def _delivery_attempt(
    at: int, delivery: int, kind: str, host: str, number: int, status: int | None, error: str | None, duration: float
) -> TimelineEntry:
    data: dict[str, Any] = {
        "delivery": delivery,
        "webhook": kind,
        "host": host,
        "attempt": number,
        "status": status,
        "error": error,
        "seconds": duration,
    }
    return TimelineEntry(at, TimelineKind.DELIVERY_ATTEMPT, data)


def _seconds(start: int, end: int) -> float:
    return max(0, end - start) / 1000
