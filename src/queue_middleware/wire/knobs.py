"""What a submission says about how it is to be run: `X-Fal-*` headers and `fal_*` parameters (fal queue contract, 2)."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from queue_middleware.errors import BadRequest
from queue_middleware.models import Priority, RetryCause, RetryPolicy, WebhookKind
from queue_middleware.value import Value

MOST_ATTEMPTS = 10
"""fal queue contract, section 8: ten attempts in total, whatever anybody asks for."""

PARAMETERS = frozenset({"fal_webhook", "fal_webhook_events", "fal_max_queue_length", "fal_callback_timeout", "fal_jwt_token"})
"""All that begin with `fal_`. Of `fal_jwt_token`, with which clients open sockets, nothing is read, and nothing is kept."""
_LONGEST_NAME = 64

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,30})?")
"""Clients send what their language prints for a float, which may be long."""


class Knobs(Value, frozen=True):
    """What a submission says about how it is to be run (section 2)."""

    retry: RetryPolicy
    priority: Priority = Priority.NORMAL
    start_timeout: float | None = None
    webhook: str | None = None
    max_queue_length: int | None = None
    store_io: bool = True
    callback_timeout: float | None = None
    """Seconds for which it waits for its callback, if it does."""
    events: tuple[WebhookKind, ...] = ()


def read_knobs(said: Mapping[bytes, bytes], parameters: Mapping[str, str], max_attempts: int) -> Knobs:
    """Read `x-fal-*` headers and `fal_*` parameters.

    Headers that are not known are ignored, as fal does; other parameters and malformed numbers raise `BadRequest`.
    """
    if not said and not parameters:
        return Knobs(_default_policy(max_attempts))
    _check_names(parameters)
    return Knobs(
        retry=_policy(said, max_attempts),
        priority=Priority.LOW if _text(said, b"x-fal-queue-priority").lower() == "low" else Priority.NORMAL,
        start_timeout=_start_timeout(said),
        webhook=parameters.get("fal_webhook"),
        max_queue_length=_length(parameters.get("fal_max_queue_length")),
        callback_timeout=_callback_timeout(parameters.get("fal_callback_timeout")),
        store_io=_text(said, b"x-fal-store-io").lower() not in ("0", "false", "no"),
        events=_events(parameters),
    )


def _check_names(parameters: Mapping[str, str]) -> None:
    """A parameter that is misspelled would be a webhook that never comes."""
    for name in parameters:
        if name in PARAMETERS:
            continue
        near = difflib.get_close_matches(name[:_LONGEST_NAME], sorted(PARAMETERS), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(PARAMETERS))}"
        raise BadRequest(f"the query parameter {name[:_LONGEST_NAME]!r} is not known; {hint}")


@lru_cache(maxsize=16)
def _default_policy(max_attempts: int) -> RetryPolicy:
    return RetryPolicy(min(max_attempts, MOST_ATTEMPTS))


def _text(said: Mapping[bytes, bytes], name: bytes) -> str:
    return said.get(name, b"").decode("latin-1").strip()


def _start_timeout(said: Mapping[bytes, bytes]) -> float | None:
    """`X-Fal-Request-Start-Timeout` wins over its deprecated name."""
    names = (b"x-fal-request-start-timeout", b"x-fal-request-timeout")
    given = [_seconds(name.decode(), _text(said, name)) for name in names if name in said]
    return given[0] if given else None


def _callback_timeout(text: str | None) -> float | None:
    return None if text is None else _seconds("fal_callback_timeout", text)


def _seconds(name: str, text: str) -> float:
    if not _SECONDS.fullmatch(text) or float(text) <= 0.1:
        raise BadRequest(f"{name} is {text[:64]!r}; it takes a number of seconds above 0.1")
    return float(text)


def _length(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadRequest(f"fal_max_queue_length is {text[:64]!r}; it takes a whole number from 0")
    return int(text)


def _events(parameters: Mapping[str, str]) -> tuple[WebhookKind, ...]:
    """`fal_webhook_events=started,progress,completed`: what is told besides the end, which is always told. Not fal's."""
    text = parameters.get("fal_webhook_events")
    if text is None:
        return ()
    if "fal_webhook" not in parameters:
        raise BadRequest("fal_webhook_events says what a webhook is told; there is no fal_webhook")
    words = {word.strip() for word in text.split(",")}
    if strange := words - set(WebhookKind):
        raise BadRequest(f"fal_webhook_events holds {min(strange)[:64]!r}; it takes {', '.join(WebhookKind)}, with commas")
    return tuple(kind for kind in (WebhookKind.STARTED, WebhookKind.PROGRESS) if kind in words)


def _policy(said: Mapping[bytes, bytes], max_attempts: int) -> RetryPolicy:
    if _text(said, b"x-fal-no-retry").lower() in ("1", "true", "yes"):
        return RetryPolicy(1)
    text = _text(said, b"x-fal-retry-config")
    return _default_policy(max_attempts).replace(extra=_retries(text)) if text else _default_policy(max_attempts)


def _retries(text: str) -> dict[RetryCause, int]:
    """`{"server_error": {"retries": 2}, …}`."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise BadRequest('x-fal-retry-config takes JSON such as {"server_error": {"retries": 2}}')
    return {cause: _count(config[cause]) for cause in RetryCause if cause in config}


def _count(entry: Any) -> int:
    count = entry.get("retries") if isinstance(entry, dict) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise BadRequest("x-fal-retry-config: retries takes a whole number from 0")
    return min(count, MOST_ATTEMPTS - 1)
