"""What AsyncQueue's routes answer, and what `onCompleteUrl` is told (AsyncQueue contract)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from typing import Any

from queue_middleware.models import Headers, StoredResponse
from queue_middleware.tasks import Channel, TaskPage, TaskRecord, TaskStatus

from .pollconfig import shown_poll_config, without_secrets
from .taskrequests import PRIORITIES, iso_time

LARGEST_PAGE = 100


def task_value(record: TaskRecord) -> dict[str, Any]:
    """A task as it is read, without its result."""
    job, spec = record.job, record.spec
    value = {
        "id": job.request_id,
        "status": record.status.value,
        "targetUrl": spec.target,
        "method": spec.method,
        "timeout": spec.timeout,
        "maxWaitTime": spec.wait,
        "maxRetries": record.max_attempts - 1,
        "retryBackoff": spec.backoff,
        "priority": PRIORITIES - record.priority,
        "waitForSignal": spec.signal,
        "provider": spec.provider,
        "pollConfig": None if spec.poll is None else shown_poll_config(without_secrets(spec.poll)),
        "onCompleteUrl": record.webhook,
        "delayUntil": iso_time(record.due_at) if record.status is TaskStatus.DELAYED else None,
        "retryCount": max(job.attempt - 1, 0),
        "lastEvent": record.event,
        "error": error_of(record),
        "createdAt": iso_time(job.created_at),
        "startedAt": iso_time(job.started_at),
        "completedAt": iso_time(job.finished_at),
    }
    return {name: part for name, part in value.items() if part is not None or name == "error"}


def created_body(record: TaskRecord, told: Mapping[str, str]) -> bytes:
    """The answer to who has made a task: the only one that tells the secret ids."""
    id_of_task = {name: text for name, text in told.items() if name == "callbackId"}
    beside = {name: text for name, text in told.items() if name != "callbackId"}
    return _json({"task": {**task_value(record), **id_of_task}, **beside})


def task_body(record: TaskRecord) -> bytes:
    """`{"task": {…}}`, with the result of a finished one. The response has to be whole."""
    return _json({"task": {**task_value(record), "result": result_of(record)}})


def page_body(page: TaskPage, limit: int, offset: int) -> bytes:
    """Tasks without their results, which may be large, and `pagination`."""
    more = offset + len(page.tasks) < page.total
    pagination = {"total": page.total, "limit": limit, "offset": offset, "hasMore": more}
    return _json({"tasks": [task_value(record) for record in page.tasks], "pagination": pagination})


def completion_body(record: TaskRecord, excuse: str | None = None) -> bytes:
    """What `onCompleteUrl` is told. `excuse`: why the result is not carried, and where it is to be had."""
    told = ("id", "status", "error", "retryCount", "createdAt", "completedAt")
    value = task_value(record)
    task = {"result": result_of(record), **{name: value.get(name) for name in told}}
    return _json({"event": f"task.{record.status}", "task": {**task, **({"resultError": excuse} if excuse else {})}})


def error_body(text: str) -> bytes:
    """Every refusal."""
    return _json({"error": text})


def result_of(record: TaskRecord) -> dict[str, Any] | None:
    """The answer of the target or the last word of the provider; what is not text is base64, and says so."""
    response, job = record.response, record.job
    if response is None:
        return None
    came_from_outside = record.resolved_by in (Channel.CALLBACK, Channel.SIGNAL)
    began, ended = job.started_at, job.finished_at
    duration = 0 if came_from_outside or began is None or ended is None else ended - began
    return {"statusCode": response.status, "headers": _joined(response), **_spelled(response.body), "duration": duration}


def error_of(record: TaskRecord) -> str | None:
    """Why it has failed."""
    if record.job.failure is not None:
        return record.job.failure.detail
    return f"the target answered {record.job.status}" if record.status is TaskStatus.FAILED else None


def signature_headers(secrets: Iterable[str], timestamp: str, body: bytes) -> Headers:
    """`X-AsyncQueue-Signature: t=…,v1=…`: HMAC-SHA256 over `t.body`, once for each secret; nothing where there is none.

    The key is the secret as a text, as its receivers have it, and not what Standard Webhooks reads from it.
    """
    message = timestamp.encode("ascii") + b"." + body
    codes = [hmac.new(secret.encode(), message, hashlib.sha256).hexdigest() for secret in secrets]
    if not codes:
        return ()
    spelled = ",".join([f"t={timestamp}", *(f"v1={code}" for code in codes)])
    return ((b"x-asyncqueue-signature", spelled.encode("ascii")),)


def _joined(response: StoredResponse) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _spelled(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode("ascii"), "bodyEncoding": "base64"}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")
