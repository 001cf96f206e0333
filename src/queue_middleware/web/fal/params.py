"""Options of a submission: `X-Fal-*` headers, `fal_*` parameters (docs/reference/protocols/fal.md, section 2)."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from queue_middleware.errors import BadRequest
from queue_middleware.jobs.models import Priority, RetryCause, RetryPolicy, WebhookKind
from queue_middleware.jobs.struct import Struct

MAX_ATTEMPTS = 10
"""The maximum in total, whatever a submission asks for (docs/reference/protocols/fal.md, section 8)."""

PARAMETERS = frozenset({"fal_webhook", "fal_webhook_events", "fal_max_queue_length", "fal_callback_timeout", "fal_jwt_token"})
"""All known `fal_*` parameters. `fal_jwt_token`, which clients send to open sockets, is neither read nor stored."""
_LONGEST_NAME = 64

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,30})?")
"""Clients send what their language prints for a float, which may be long."""


class SubmitOptions(Struct, frozen=True):
    """How a submission is to be run."""

    retry: RetryPolicy
    priority: Priority = Priority.NORMAL
    start_timeout: float | None = None
    webhook: str | None = None
    max_queue_length: int | None = None
    store_io: bool = True
    callback_timeout: float | None = None
    """Seconds to wait for a callback, if the job waits for one."""
    webhook_kinds: tuple[WebhookKind, ...] = ()


def read_options(headers: Mapping[bytes, bytes], parameters: Mapping[str, str], max_attempts: int) -> SubmitOptions:
    """Read `x-fal-*` headers and `fal_*` parameters.

    Unknown headers are ignored, as fal does. Unknown parameters and malformed numbers raise `BadRequest`.
    """
    if not headers and not parameters:
        return SubmitOptions(_default_policy(max_attempts))
    _check_names(parameters)
    return SubmitOptions(
        retry=_policy(headers, max_attempts),
        priority=Priority.LOW if _text(headers, b"x-fal-queue-priority").lower() == "low" else Priority.NORMAL,
        start_timeout=_start_timeout(headers),
        webhook=parameters.get("fal_webhook"),
        max_queue_length=_length(parameters.get("fal_max_queue_length")),
        callback_timeout=_callback_timeout(parameters.get("fal_callback_timeout")),
        store_io=_text(headers, b"x-fal-store-io").lower() not in ("0", "false", "no"),
        webhook_kinds=_webhook_kinds(parameters),
    )


def _check_names(parameters: Mapping[str, str]) -> None:
    """Refuse unknown names: a misspelled `fal_webhook` would be a webhook that is never sent."""
    for name in parameters:
        if name in PARAMETERS:
            continue
        near = difflib.get_close_matches(name[:_LONGEST_NAME], sorted(PARAMETERS), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(PARAMETERS))}"
        raise BadRequest(f"the query parameter {name[:_LONGEST_NAME]!r} is not known; {hint}")


@lru_cache(maxsize=16)
def _default_policy(max_attempts: int) -> RetryPolicy:
    return RetryPolicy(min(max_attempts, MAX_ATTEMPTS))


def _text(headers: Mapping[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1").strip()


def _start_timeout(headers: Mapping[bytes, bytes]) -> float | None:
    """`X-Fal-Request-Start-Timeout` takes precedence over its deprecated name."""
    names = (b"x-fal-request-start-timeout", b"x-fal-request-timeout")
    given = [_seconds(name.decode(), _text(headers, name)) for name in names if name in headers]
    return given[0] if given else None


def _callback_timeout(text: str | None) -> float | None:
    return None if text is None else _seconds("fal_callback_timeout", text)


def _seconds(name: str, text: str) -> float:
    if not _SECONDS.fullmatch(text) or float(text) <= 0.1:
        raise BadRequest(f"{name} is {text[:64]!r}; expected a number of seconds above 0.1")
    return float(text)


def _length(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadRequest(f"fal_max_queue_length is {text[:64]!r}; expected a whole number from 0")
    return int(text)


def _webhook_kinds(parameters: Mapping[str, str]) -> tuple[WebhookKind, ...]:
    """`fal_webhook_events=started,progress,completed`: an extension. The completion is always sent."""
    text = parameters.get("fal_webhook_events")
    if text is None:
        return ()
    if "fal_webhook" not in parameters:
        raise BadRequest("fal_webhook_events needs fal_webhook, which is missing")
    kinds = {name.strip() for name in text.split(",")}
    if unknown := kinds - set(WebhookKind):
        raise BadRequest(
            f"fal_webhook_events holds {min(unknown)[:64]!r}; expected a comma-separated list of {', '.join(WebhookKind)}"
        )
    return tuple(kind for kind in (WebhookKind.STARTED, WebhookKind.PROGRESS) if kind in kinds)


def _policy(headers: Mapping[bytes, bytes], max_attempts: int) -> RetryPolicy:
    if _text(headers, b"x-fal-no-retry").lower() in ("1", "true", "yes"):
        return RetryPolicy(1)
    text = _text(headers, b"x-fal-retry-config")
    return _default_policy(max_attempts).replace(extra=_retries(text)) if text else _default_policy(max_attempts)


def _retries(text: str) -> dict[RetryCause, int]:
    """`{"server_error": {"retries": 2}, …}`."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise BadRequest('x-fal-retry-config is not valid; expected JSON such as {"server_error": {"retries": 2}}')
    return {cause: _count(config[cause]) for cause in RetryCause if cause in config}


def _count(entry: Any) -> int:
    count = entry.get("retries") if isinstance(entry, dict) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise BadRequest("x-fal-retry-config: retries is not a whole number from 0")
    return min(count, MAX_ATTEMPTS - 1)
