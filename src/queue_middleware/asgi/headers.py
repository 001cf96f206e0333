"""Which headers of a submission are replayed, and which of an answer are kept (RFC 9110 §5, §7.6.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from queue_middleware.jobs.models import Headers
from queue_middleware.jobs.struct import Struct

from .proxy_headers import is_set_by_proxies

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

MAX_HEADER_BYTES = 32 * 1024
"""Bytes of all headers of a submission, and of those that a task gives to its call."""

_REPLAYED, _SAID, _CONNECTION = 1, 2, 4
"""What may become of a request header, as bits."""

_REMEMBERED = 64
"""Bytes of a name. What becomes of shorter ones is remembered; some servers take names of megabytes."""

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]")


class RequestHeaders(Struct, frozen=True):
    """What the headers of a submission come to, read once."""

    replayed: Headers
    """Those that the application will see."""
    values: bytes
    """All values of those in one text to search in."""
    fal_headers: Mapping[bytes, bytes]
    """`x-fal-*`: what is said to us. Of one that is repeated the last counts."""
    size: int
    """Bytes of all of them, with what stands between them on the wire."""


def read_headers(headers: Headers, is_set_by_proxies: Callable[[bytes], bool] = is_set_by_proxies) -> RequestHeaders:
    """Read the headers of a submission, names in lower case. Those that `is_set_by_proxies` stay whatever `Connection` says."""
    kept: list[tuple[bytes, bytes]] = []
    values: list[bytes] = []
    said: dict[bytes, bytes] = {}
    size = 4 * len(headers)
    connection = False
    for pair in headers:
        name, value = pair
        size += len(name) + len(value)
        fate = _fate(name) if len(name) < _REMEMBERED else _fate.__wrapped__(name)
        if fate & _REPLAYED:
            kept.append(pair)
            values.append(value)
        if fate & _SAID:
            said[name] = value
        elif fate & _CONNECTION:
            connection = True
    if connection:
        named = _named_by_connection(headers)
        # A client that names what a proxy has said of it would have it removed behind the proxy's back.
        kept = [pair for pair in kept if pair[0] not in named or is_set_by_proxies(pair[0])]
    # One search over all of them: nearly always there is nothing to find.
    text = b" ".join(values)
    if _BAD_VALUE.search(text):
        kept = [pair for pair in kept if not _BAD_VALUE.search(pair[1])]
    return RequestHeaders(tuple(kept), text, said, size)


def kept_headers(headers: Iterable[tuple[Any, Any]]) -> Headers:
    """The application's headers as they are given to whoever fetches the result.

    Raises `TypeError` for what is not bytes and `ValueError` for what is no header, as servers do: it could not be sent later.
    """
    kept: list[tuple[bytes, bytes]] = []
    values: list[bytes] = []
    connection: list[bytes] = []
    for given_name, given_value in headers:
        value = given_value if type(given_value) is bytes else bytes(memoryview(given_value))
        name = given_name if type(given_name) is bytes else bytes(memoryview(given_name))
        name = _lower_token(name) if len(name) < _REMEMBERED else _lower_token.__wrapped__(name)
        values.append(value)
        if name not in _NOT_KEPT:
            kept.append((name, value))
        elif name == b"connection":
            connection.append(value)
    if _BAD_VALUE.search(b" ".join(values)):
        raise ValueError("a response header holds a line break or a null byte")
    if connection:
        named = _names(connection)
        kept = [pair for pair in kept if pair[0] not in named]
    return tuple(kept)


def declared_length(headers: Headers) -> int | None:
    """The value of `content-length`; -1 where it is no number, None where there is none."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else -1
    return None


@lru_cache(maxsize=512)
def _fate(name: bytes) -> int:
    """What becomes of a request header. Names with `_` are not replayed: servers and gateways mistake it for `-`."""
    replayed = name not in _NOT_REPLAYED and b"_" not in name and _TOKEN.fullmatch(name) is not None
    return _REPLAYED * replayed | _SAID * name.startswith(b"x-fal-") | _CONNECTION * (name == b"connection")


@lru_cache(maxsize=512)
def _lower_token(name: bytes) -> bytes:
    lower = name.lower()
    if not _TOKEN.fullmatch(lower):
        raise ValueError(f"{name!r} is no name of a header")
    return lower


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    return _names([value for name, value in headers if name == b"connection"])


def _names(connection: Iterable[bytes]) -> frozenset[bytes]:
    """`Connection: close, x-private` makes `x-private` a hop-by-hop header too."""
    return frozenset(part.strip().lower() for value in connection for part in value.split(b","))
