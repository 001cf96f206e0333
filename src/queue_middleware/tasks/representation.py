"""JSON representation of a task, for AsyncQueue's responses and `onCompleteUrl` (docs/reference/protocols/asyncqueue.md)."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from queue_middleware.jobs.models import Headers

from .models import TaskPage, TaskRecord, TaskStatus
from .polling.config import render_poll_config, without_secrets
from .results import BodyEncoding, result_of, split_result

PRIORITIES = 10
"""Priorities of tasks: 10 runs first, 1 last. Jobs count the other way: 0 runs first."""


def task_value(record: TaskRecord) -> dict[str, Any]:
    """A task without its result."""
    job, spec = record.job, record.spec
    value = {
        "id": job.request_id,
        "status": record.status.value,
        "targetUrl": spec.target,
        "method": spec.method,
        "timeout": spec.timeout,
        "maxWaitTime": spec.wait_timeout,
        "maxRetries": record.max_attempts - 1,
        "retryBackoff": spec.backoff,
        "priority": PRIORITIES - record.priority,
        "waitForSignal": spec.signal,
        "provider": spec.provider,
        "pollConfig": None if spec.poll is None else render_poll_config(without_secrets(spec.poll)),
        "onCompleteUrl": record.webhook,
        "delayUntil": iso_time(record.due_at) if record.status is TaskStatus.DELAYED else None,
        "retryCount": max(job.attempt - 1, 0),
        "lastEvent": record.last_status,
        "error": error_of(record),
        "createdAt": iso_time(job.created_at),
        "startedAt": iso_time(job.started_at),
        "completedAt": iso_time(job.finished_at),
    }
    return {name: part for name, part in value.items() if part is not None or name == "error"}


def created_body(record: TaskRecord, secrets: Mapping[str, str]) -> bytes:
    """The response to the creation of a task, the only one that contains the secret ids."""
    id_of_task = {name: text for name, text in secrets.items() if name == "callbackId"}
    beside = {name: text for name, text in secrets.items() if name != "callbackId"}
    return _json({"task": {**task_value(record), **id_of_task}, **beside})


def task_body(record: TaskRecord) -> bytes:
    """`{"task": {…}}`, with the result of a finished one. The response has to be whole."""
    return _json({"task": {**task_value(record), "result": result_of(record)}})


def split_task_body(record: TaskRecord, encoding: BodyEncoding) -> tuple[bytes, bytes]:
    """`task_body` without the body of the result: the bytes before and after it."""
    return _framed(b'{"task": ' + _json(task_value(record))[:-1] + b', "result": ', record, encoding, b"}}")


def page_body(page: TaskPage, limit: int, offset: int) -> bytes:
    """Tasks without their results, which may be large, and `pagination`."""
    more = offset + len(page.tasks) < page.total
    pagination = {"total": page.total, "limit": limit, "offset": offset, "hasMore": more}
    return _json({"tasks": [task_value(record) for record in page.tasks], "pagination": pagination})


def completion_body(record: TaskRecord, result_error: str | None = None) -> bytes:
    """The body sent to `onCompleteUrl`. `result_error`: why the result is not included, and its URL."""
    task = {"result": result_of(record), **_end_of(record), **({"resultError": result_error} if result_error else {})}
    return _json({"event": f"task.{record.status}", "task": task})


def split_completion_body(record: TaskRecord, encoding: BodyEncoding) -> tuple[bytes, bytes]:
    """`completion_body` without the body of the result: the bytes before and after it."""
    before = _json({"event": f"task.{record.status}"})[:-1] + b', "task": {"result": '
    return _framed(before, record, encoding, b", " + _json(_end_of(record))[1:] + b"}")


def _end_of(record: TaskRecord) -> dict[str, Any]:
    value = task_value(record)
    return {name: value.get(name) for name in ("id", "status", "error", "retryCount", "createdAt", "completedAt")}


def _framed(before: bytes, record: TaskRecord, encoding: BodyEncoding, after: bytes) -> tuple[bytes, bytes]:
    begin, end = split_result(record, encoding)
    return before + begin, end + after


def error_body(text: str) -> bytes:
    """The body of every error response."""
    return _json({"error": text})


def error_of(record: TaskRecord) -> str | None:
    """Why the task failed."""
    if record.job.failure is not None:
        return record.job.failure.detail
    return f"the target responded with {record.job.status}" if record.status is TaskStatus.FAILED else None


def signature_macs(secrets: Iterable[str], timestamp: str) -> list[hmac.HMAC]:
    """The MACs of `X-AsyncQueue-Signature`, HMAC-SHA256 over `t.body`: one for each secret, to be updated with the body.

    The key is the text of the secret, as receivers have it, and not the bytes that Standard Webhooks decodes from it.
    """
    return [hmac.new(secret.encode(), timestamp.encode("ascii") + b".", hashlib.sha256) for secret in secrets]


def signature_header(macs: Iterable[hmac.HMAC], timestamp: str) -> Headers:
    """`X-AsyncQueue-Signature: t=…,v1=…`, one `v1` for each MAC of the whole body; no header without MACs."""
    value = ",".join([f"t={timestamp}", *(f"v1={mac.hexdigest()}" for mac in macs)])
    return ((b"x-asyncqueue-signature", value.encode("ascii")),) if "," in value else ()


def iso_time(milliseconds: int | None) -> str | None:
    """Milliseconds since 1970 as an ISO 8601 time in UTC."""
    if milliseconds is None:
        return None
    time = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")
