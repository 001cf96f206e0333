"""Which headers of a submission are replayed, and which of an answer are kept (RFC 9110 §5, §7.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from .models import Headers

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"transfer-encoding",
     b"upgrade", b"proxy-connection"}
)  # fmt: skip
_TO_RUNNER = frozenset({b"x-fal-stop-runner"})
"""With which an application asks fal for something. There is nothing here to stop, and fal does not pass it on either."""
_OF_ANSWERS = _TO_RUNNER | {
    b"x-fal-needs-retry", b"x-fal-error-type", b"x-fal-request-timeout-type", b"x-fal-billable-units", b"x-fal-served-from",
    b"x-fal-runner-hints",
}  # fmt: skip
"""What only an answer says. An application that repeats what it was sent would say it in the client's words."""
_NOT_REPLAYED = (
    _HOP_BY_HOP | _OF_ANSWERS | {b"expect", b"content-length", b"accept-encoding", b"x-fal-request-id", b"x-fal-attempt"}
)
"""What belongs to the submission's own connection, or is ours to say. Range and If-* stay: they are part of the question."""
_NOT_KEPT = _HOP_BY_HOP | _TO_RUNNER | {b"date", b"server"}

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]")


def replayed_headers(headers: Headers) -> tuple[Headers, bytes]:
    """Those request headers that the application will see at the replay, and all their values in one text to search in."""
    kept = [pair for pair in headers if _is_replayed(pair[0])]
    if named := _named_by_connection(headers):
        kept = [pair for pair in kept if pair[0] not in named]
    # One search over all of them: nearly always there is nothing to find.
    values = b" ".join([value for _, value in kept])
    if _BAD_VALUE.search(values):
        kept = [pair for pair in kept if not _BAD_VALUE.search(pair[1])]
    return tuple(kept), values


def kept_headers(headers: Iterable[tuple[Any, Any]]) -> Headers:
    """The application's headers as they are given to whoever fetches the result.

    Raises `TypeError` for what is not bytes and `ValueError` for what is no header, as servers do: it could not be sent later.
    """
    given = [(_lower_token(_octets(name)), _octets(value)) for name, value in headers]
    if _BAD_VALUE.search(b" ".join([value for _, value in given])):
        raise ValueError("a response header holds a line break or a null byte")
    kept = [pair for pair in given if pair[0] not in _NOT_KEPT]
    if named := _named_by_connection(given):
        kept = [pair for pair in kept if pair[0] not in named]
    return tuple(kept)


def declared_length(headers: Headers) -> int | None:
    """The value of `content-length`; -1 where it is no number, None where there is none."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else -1
    return None


@lru_cache(maxsize=512)
def _is_replayed(name: bytes) -> bool:
    """Names with `_` are not: servers and gateways mistake it for `-`."""
    return name not in _NOT_REPLAYED and b"_" not in name and _TOKEN.fullmatch(name) is not None


@lru_cache(maxsize=512)
def _lower_token(name: bytes) -> bytes:
    lower = name.lower()
    if not _TOKEN.fullmatch(lower):
        raise ValueError(f"{name!r} is no name of a header")
    return lower


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """`Connection: close, x-private` makes `x-private` a hop-by-hop header too."""
    values = [value for name, value in headers if name == b"connection"]
    return frozenset(part.strip().lower() for value in values for part in value.split(b",")) if values else frozenset()


def _octets(value: Any) -> bytes:
    return value if type(value) is bytes else bytes(memoryview(value))
