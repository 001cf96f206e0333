"""Reads and checks the body of `POST /v1/tasks` (docs/reference/protocols/asyncqueue.md, "Tasks")."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from queue_middleware.errors import BadRequest
from queue_middleware.jobs.models import Headers
from queue_middleware.jobs.struct import Struct
from queue_middleware.jobs.task_spec import Backoff, PollConfig
from queue_middleware.syntax.json_text import read_json
from queue_middleware.tasks.polling.config import is_relative, parse_poll_config
from queue_middleware.tasks.polling.providers import find_provider
from queue_middleware.tasks.polling.templates import members
from queue_middleware.tasks.representation import PRIORITIES, iso_time

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MAX_RETRIES = 10
MAX_TIMEOUT = 86_400.0

_NAME = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")


class TaskRequest(Struct, frozen=True):
    """A task as the client describes it. Times are in seconds; defaults are those of the protocol."""

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
    """1 to 10; higher numbers run first."""
    on_complete: str | None
    signal: bool
    provider: str | None
    poll: PollConfig | None


_FIELDS = (
    "targetUrl", "method", "headers", "body", "timeout", "maxWaitTime", "delayUntil", "maxRetries", "retryBackoff", "priority",
    "onCompleteUrl", "waitForSignal", "provider", "pollConfig",
)  # fmt: skip


def read_task(body: bytes, max_wait: float = math.inf) -> TaskRequest:
    """Read the body of `POST /v1/tasks`. `maxWaitTime` may be at most `max_wait` seconds.

    Raises `BadRequest`, which names the field, its value and what is accepted.
    """
    fields = members(read_json(body), _FIELDS)
    if fields is None:
        raise BadRequest("a task is a JSON object")
    target = _text(fields, "targetUrl")
    if not target:
        raise BadRequest("targetUrl is missing: the URL, or the path of this application, that the task calls")
    method = (_text(fields, "method") or "POST").upper()
    if method not in METHODS:
        raise BadRequest(f"method is {method[:20]!r}; expected one of {', '.join(METHODS)}")
    poll = _poll(fields, target)
    sent = b"" if method == "GET" else (_text(fields, "body") or "").encode()
    return TaskRequest(
        target=target,
        method=method,
        headers=_headers(fields.get("headers"), has_body=bool(sent)),
        body=sent,
        timeout=_number(fields, "timeout", 30.0, MAX_TIMEOUT),
        wait=_wait(fields, poll, max_wait),
        due_at=_time(fields, "delayUntil"),
        retries=_integer(fields, "maxRetries", 3, 0, MAX_RETRIES),
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
    config = provider.poll if given is None and provider is not None else parse_poll_config(given)
    if target.startswith("/") and is_relative(config):
        raise BadRequest("targetUrl is a path of this application, so the templates of pollConfig have to be absolute URLs")
    return config


def _wait(fields: Mapping[str, Any], poll: PollConfig | None, most: float) -> float:
    """By default a polled task waits for as long as it may be polled."""
    default = min(30.0 if poll is None else poll.max_duration, most)
    return _number(fields, "maxWaitTime", default, most)


def check_due(due_at: int | None, now: float, most: float) -> None:
    """Raise `BadRequest` for a task that is delayed by more than `most` seconds.

    `due_at` in milliseconds since 1970, `now` in seconds.
    """
    if due_at is not None and due_at / 1000 - now > most:
        raise BadRequest(f"delayUntil is {iso_time(due_at)!r}; expected a time within the next {most:.15g} seconds (max_delay)")


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} must be a string")
    return value


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool | None):
        raise BadRequest(f"{name} must be true or false")
    return bool(value)


def _number(fields: Mapping[str, Any], name: str, default: float, most: float, *, least: float = 0.001) -> float:
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BadRequest(f"{name} is {str(value)[:64]!r}; expected seconds, at most {most:.15g}")
    return float(value)


def _integer(fields: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadRequest(f"{name} is {str(value)[:64]!r}; expected a whole number from {least} to {most}")
    return value


def _backoff(fields: Mapping[str, Any]) -> Backoff:
    word = _text(fields, "retryBackoff") or Backoff.EXPONENTIAL
    if word not in set(Backoff):
        raise BadRequest(f"retryBackoff is {word[:64]!r}; expected 'exponential' or 'linear'")
    return Backoff(word)


def _time(fields: Mapping[str, Any], name: str) -> int | None:
    """Milliseconds since 1970 of an ISO 8601 time; one without a zone is UTC."""
    text = _text(fields, name)
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        milliseconds = round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
        iso_time(milliseconds)  # a time that cannot be rendered is not accepted
        return milliseconds
    except (ValueError, OverflowError):
        raise BadRequest(f"{name} is {text[:64]!r}; expected a time in ISO 8601, e.g. '2026-01-31T08:00:00Z'") from None


def _headers(given: Any, *, has_body: bool) -> Headers:
    """The headers with lower-case names. A body without a content type is sent as JSON, the usual type of tasks."""
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise BadRequest("headers must be an object whose values are strings")
    for name, value in given.items():
        if not isinstance(value, str) or not _NAME.fullmatch(name) or _BAD_VALUE.search(value):
            raise BadRequest(
                f"headers has {name[:64]!r}, which is not a header name, or whose value is not a single line of text"
            )
    headers = tuple((name.lower().encode("ascii"), value.strip().encode("latin-1")) for name, value in given.items())
    if has_body and not any(name == b"content-type" for name, _ in headers):
        headers = (*headers, (b"content-type", b"application/json"))
    return headers
