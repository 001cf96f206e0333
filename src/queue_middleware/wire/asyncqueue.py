"""AsyncQueue as it is spelled on the wire: tasks that are asked for, and what we answer (AsyncQueue contract)."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from queue_middleware.errors import BadRequest
from queue_middleware.models import Headers
from queue_middleware.tasks import TaskPage, TaskRecord, TaskStatus
from queue_middleware.taskspec import Backoff, PollConfig
from queue_middleware.value import Value

from .pollconfig import is_relative, read_poll_config, shown_poll_config
from .providers import find_provider
from .taskresults import Spelling, result_frame, result_of
from .templates import members, read_json

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MOST_RETRIES = 10
LONGEST_TIMEOUT = 86_400.0
LONGEST_WAIT = 30 * 86_400.0
LARGEST_PAGE = 100
PRIORITIES = 10
"""1 is the last, 10 the first; jobs count the other way."""

_NAME = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")


class TaskRequest(Value, frozen=True):
    """A task as it is asked for. Seconds, and defaults, as the contract has them."""

    target: str
    method: str
    headers: Headers
    body: bytes
    timeout: float
    wait: float
    due_at: int | None
    retries: int
    backoff: Backoff
    priority: int
    """1 to 10, high first."""
    on_complete: str | None
    signal: bool
    provider: str | None
    poll: PollConfig | None


# --- what is asked for

_FIELDS = (
    "targetUrl", "method", "headers", "body", "timeout", "maxWaitTime", "delayUntil", "maxRetries", "retryBackoff", "priority",
    "onCompleteUrl", "waitForSignal", "provider", "pollConfig",
)  # fmt: skip


def read_task(body: bytes) -> TaskRequest:
    """Read the body of `POST /v1/tasks`. Raises `BadRequest`, which names the field, its value, and what it takes."""
    fields = members(read_json(body), _FIELDS)
    if fields is None:
        raise BadRequest("a task is a JSON object")
    target = _text(fields, "targetUrl")
    if not target:
        raise BadRequest("targetUrl is missing: the URL, or the path of this application, that the task calls")
    method = (_text(fields, "method") or "POST").upper()
    if method not in METHODS:
        raise BadRequest(f"method is {method[:20]!r}; it takes {', '.join(METHODS)}")
    poll = _poll(fields, target)
    sent = b"" if method == "GET" else (_text(fields, "body") or "").encode()
    return TaskRequest(
        target=target,
        method=method,
        headers=_headers(fields.get("headers"), has_body=bool(sent)),
        body=sent,
        timeout=_number(fields, "timeout", 30.0, LONGEST_TIMEOUT),
        wait=_wait(fields, poll),
        due_at=_time(fields, "delayUntil"),
        retries=_integer(fields, "maxRetries", 3, 0, MOST_RETRIES),
        backoff=_backoff(fields),
        priority=_integer(fields, "priority", 5, 1, PRIORITIES),
        on_complete=_text(fields, "onCompleteUrl") or None,
        signal=_flag(fields, "waitForSignal"),
        provider=_text(fields, "provider") or None,
        poll=poll,
    )


def _poll(fields: Mapping[str, Any], target: str) -> PollConfig | None:
    name, given = _text(fields, "provider"), fields.get("pollConfig")
    provider = find_provider(name) if name else None
    if given is None and provider is None:
        return None
    config = provider.poll if given is None and provider is not None else read_poll_config(given)
    if target.startswith("/") and is_relative(config):
        raise BadRequest("targetUrl is a path of this application, so the templates of pollConfig have to be whole addresses")
    return config


def _wait(fields: Mapping[str, Any], poll: PollConfig | None) -> float:
    """A polled task that says nothing waits for as long as it may be polled."""
    default = 30.0 if poll is None else poll.max_duration
    return _number(fields, "maxWaitTime", default, LONGEST_WAIT)


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} takes a text")
    return value


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool | None):
        raise BadRequest(f"{name} takes true or false")
    return bool(value)


def _number(fields: Mapping[str, Any], name: str, default: float, most: float, *, least: float = 0.001) -> float:
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BadRequest(f"{name} is {str(value)[:64]!r}; it takes seconds, at most {most:g}")
    return float(value)


def _integer(fields: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadRequest(f"{name} is {str(value)[:64]!r}; it takes a whole number from {least} to {most}")
    return value


def _backoff(fields: Mapping[str, Any]) -> Backoff:
    word = _text(fields, "retryBackoff") or Backoff.EXPONENTIAL
    if word not in set(Backoff):
        raise BadRequest(f"retryBackoff is {word[:64]!r}; it takes 'exponential' or 'linear'")
    return Backoff(word)


def _time(fields: Mapping[str, Any], name: str) -> int | None:
    """Milliseconds since 1970 of an ISO 8601 time; one without a zone is UTC."""
    text = _text(fields, name)
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        milliseconds = round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
        _iso(milliseconds)  # what cannot be told again is not taken
        return milliseconds
    except (ValueError, OverflowError):
        raise BadRequest(f"{name} is {text[:64]!r}; it takes a time in ISO 8601, e.g. '2026-01-31T08:00:00Z'") from None


def _headers(given: Any, *, has_body: bool) -> Headers:
    """Names in lower case. A body that does not say what it is is JSON: that is what tasks are for."""
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise BadRequest("headers takes an object of texts")
    for name, value in given.items():
        if not isinstance(value, str) or not _NAME.fullmatch(name) or _BAD_VALUE.search(value):
            raise BadRequest(f"headers holds {name[:64]!r}, which is no header, or whose value is no text of one line")
    headers = tuple((name.lower().encode("ascii"), value.strip().encode("latin-1")) for name, value in given.items())
    if has_body and not any(name == b"content-type" for name, _ in headers):
        headers = (*headers, (b"content-type", b"application/json"))
    return headers


# --- what we answer


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
        "pollConfig": None if spec.poll is None else shown_poll_config(spec.poll),
        "onCompleteUrl": record.webhook,
        "delayUntil": _iso(record.due_at) if record.status is TaskStatus.DELAYED else None,
        "retryCount": max(job.attempt - 1, 0),
        "lastEvent": record.event,
        "error": error_of(record),
        "createdAt": _iso(job.created_at),
        "startedAt": _iso(job.started_at),
        "completedAt": _iso(job.finished_at),
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


def task_frame(record: TaskRecord, spelling: Spelling) -> tuple[bytes, bytes]:
    """`task_body` without the body of the result: what stands before it and behind it."""
    return _framed(b'{"task": ' + _json(task_value(record))[:-1] + b', "result": ', record, spelling, b"}}")


def page_body(page: TaskPage, limit: int, offset: int) -> bytes:
    """Tasks without their results, which may be large, and `pagination`."""
    more = offset + len(page.tasks) < page.total
    pagination = {"total": page.total, "limit": limit, "offset": offset, "hasMore": more}
    return _json({"tasks": [task_value(record) for record in page.tasks], "pagination": pagination})


def completion_body(record: TaskRecord, excuse: str | None = None) -> bytes:
    """What `onCompleteUrl` is told. `excuse`: why the result is not carried, and where it is to be had."""
    task = {"result": result_of(record), **_end_of(record), **({"resultError": excuse} if excuse else {})}
    return _json({"event": f"task.{record.status}", "task": task})


def completion_frame(record: TaskRecord, spelling: Spelling) -> tuple[bytes, bytes]:
    """The same without the body of the result."""
    before = _json({"event": f"task.{record.status}"})[:-1] + b', "task": {"result": '
    return _framed(before, record, spelling, b", " + _json(_end_of(record))[1:] + b"}")


def _end_of(record: TaskRecord) -> dict[str, Any]:
    value = task_value(record)
    return {name: value.get(name) for name in ("id", "status", "error", "retryCount", "createdAt", "completedAt")}


def _framed(before: bytes, record: TaskRecord, spelling: Spelling, after: bytes) -> tuple[bytes, bytes]:
    begin, end = result_frame(record, spelling)
    return before + begin, end + after


def error_body(text: str) -> bytes:
    """Every refusal."""
    return _json({"error": text})


def error_of(record: TaskRecord) -> str | None:
    """Why it has failed."""
    if record.job.failure is not None:
        return record.job.failure.detail
    return f"the target answered {record.job.status}" if record.status is TaskStatus.FAILED else None


def signature_codes(secrets: Iterable[str], timestamp: str) -> list[hmac.HMAC]:
    """What computes the codes of `X-AsyncQueue-Signature`, HMAC-SHA256 over `t.body`: one for each secret, the body to follow.

    The key is the secret as a text, as its receivers have it, and not what Standard Webhooks reads from it.
    """
    return [hmac.new(secret.encode(), timestamp.encode("ascii") + b".", hashlib.sha256) for secret in secrets]


def signature_headers(secrets: Iterable[str], timestamp: str, body: bytes) -> Headers:
    """`X-AsyncQueue-Signature: t=…,v1=…`, one `v1` for each secret; nothing where there is none."""
    codes = signature_codes(secrets, timestamp)
    for code in codes:
        code.update(body)
    return spelled_codes(codes, timestamp)


def spelled_codes(codes: Iterable[hmac.HMAC], timestamp: str) -> Headers:
    """The header of codes that the whole body has passed through."""
    spelled = ",".join([f"t={timestamp}", *(f"v1={code.hexdigest()}" for code in codes)])
    return ((b"x-asyncqueue-signature", spelled.encode("ascii")),) if "," in spelled else ()


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    time = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")
