"""Selects the headers of a submission that are replayed, and those of a response that are kept (RFC 9110 §5, §7.6.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

from queue_middleware.jobs.models import Headers
from queue_middleware.jobs.struct import Struct

from .proxy_headers import is_set_by_proxies

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"transfer-encoding",
     b"upgrade", b"proxy-connection"}
)  # fmt: skip
_FOR_RUNNER = frozenset({b"x-fal-stop-runner"})
"""Requests of an application to fal's runner. There is no runner here, and fal does not pass them on either."""
_RESPONSE_ONLY = _FOR_RUNNER | {
    b"x-fal-needs-retry", b"x-fal-error-type", b"x-fal-request-timeout-type", b"x-fal-billable-units", b"x-fal-served-from",
    b"x-fal-runner-hints",
}  # fmt: skip
"""Headers that only responses have. An application that echoes its request headers would repeat the client's values."""
_NOT_REPLAYED = (
    _HOP_BY_HOP | _RESPONSE_ONLY | {b"expect", b"content-length", b"accept-encoding", b"x-fal-request-id", b"x-fal-attempt"}
)
"""Headers of the submission's own connection, and those that the queue sets. Range and If-* are replayed."""
_NOT_KEPT = _HOP_BY_HOP | _FOR_RUNNER | {b"date", b"server"}
TRACE_HEADERS = frozenset({b"traceparent", b"tracestate"})
"""W3C Trace Context."""

MAX_HEADER_BYTES = 32 * 1024
"""Bytes of all headers of a submission, and of those that a task sets for its call."""

_REPLAYED, _DROPPED, _REPLAYED_FAL, _DROPPED_FAL, _NOTED, _LENGTH, _CONNECTION = range(7)
"""How a request header is treated. The noted ones are replayed, and the queue reads them too."""
_FROM_BROWSER = frozenset({b"origin", b"sec-fetch-site"})
_SPECIAL = {
    **dict.fromkeys(_FROM_BROWSER, _NOTED), b"idempotency-key": _NOTED, b"prefer": _NOTED, b"content-length": _LENGTH,
    b"connection": _CONNECTION,
}  # fmt: skip

_MAX_CACHED_NAME = 64
"""Bytes. Shorter names are cached."""
_MAX_CACHED_NAMES = 512

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_CR, _LF, _NUL = b"\r\n\0"


class RequestHeaders(Struct, frozen=True):
    """The headers of a submission, parsed once."""

    private = frozenset({"text", "noted"})

    replayed: Headers
    """The headers that the application sees."""
    text: bytes
    """All names and values, one after the other, for searching. What is not in it is in no header."""
    fal_headers: Mapping[bytes, bytes]
    """`x-fal-*` headers, which address the queue. If one is repeated, the last value counts."""
    size: int
    """Bytes of all headers, separators included."""
    lengths: tuple[bytes, ...] = ()
    """The values of `Content-Length`."""
    noted: Headers = ()
    """The headers that the queue reads too: of browsers, `Idempotency-Key`, `Prefer`. Nearly all submissions have none."""

    @property
    def is_from_browser(self) -> bool:
        """Whether a header names the page that made a browser send the request (`Origin`, `Sec-Fetch-Site`)."""
        return bool(self.noted) and any(name in _FROM_BROWSER for name, _ in self.noted)

    def noted_values(self, name: bytes) -> list[bytes]:
        """The values of a header in `noted`."""
        return [value for noted, value in self.noted if noted == name]


def read_headers(headers: Headers, is_set_by_proxies: Callable[[bytes], bool] = is_set_by_proxies) -> RequestHeaders:
    """Parse the headers of a submission, names in lower case. `Connection` cannot remove those that `is_set_by_proxies`."""
    kept: list[tuple[bytes, bytes]] = []
    fal_headers: dict[bytes, bytes] = {}
    lengths: tuple[bytes, ...] = ()
    noted: Headers = ()
    has_connection = False
    for pair in headers:
        treatment = _treatments[pair[0]]
        if treatment == _REPLAYED:
            kept.append(pair)
        elif treatment == _REPLAYED_FAL:
            kept.append(pair)
            fal_headers[pair[0]] = pair[1]
        elif treatment == _DROPPED_FAL:
            fal_headers[pair[0]] = pair[1]
        elif treatment == _LENGTH:
            lengths += (pair[1],)
        elif treatment == _NOTED:
            kept.append(pair)
            noted += (pair,)
        elif treatment == _CONNECTION:
            has_connection = True
    if has_connection:
        kept = _without_named(kept, headers, is_set_by_proxies)
    # One search over everything, because it nearly always finds nothing.
    text = b"".join(chain.from_iterable(headers))
    if _is_bad(text):
        kept = [pair for pair in kept if not _is_bad(pair[1])]
    return RequestHeaders(tuple(kept), text, fal_headers, len(text) + 4 * len(headers), lengths, noted)


def kept_headers(headers: Iterable[tuple[Any, Any]]) -> Headers:
    """The application's headers as clients that fetch the result receive them.

    Raises `TypeError` for values that are not bytes and `ValueError` for invalid headers, as servers do.
    """
    kept: list[tuple[bytes, bytes]] = []
    values: list[bytes] = []
    connection: list[bytes] = []
    for name, value in headers:
        if type(name) is not bytes or type(value) is not bytes:
            name, value = bytes(memoryview(name)), bytes(memoryview(value))
        values.append(value)
        kept_name = _kept_names[name]
        if kept_name:
            kept.append((kept_name, value))
        elif name.lower() == b"connection":
            connection.append(value)
    if _is_bad(b"".join(values)):
        raise ValueError("a response header holds a line break or a null byte")
    if connection:
        named = _names(connection)
        kept = [pair for pair in kept if pair[0] not in named]
    return tuple(kept)


def without_trace(headers: Headers) -> Headers:
    """The headers without any trace context."""
    return tuple([pair for pair in headers if pair[0] not in TRACE_HEADERS])


def content_lengths(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The values of `Content-Length`, as in `RequestHeaders.lengths`."""
    return [value for name, value in headers if name == b"content-length"]


def declared_length(headers: Headers) -> int | None:
    """The value of `content-length`; -1 if it is not a number, None if it is missing."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else -1
    return None


class _Treatments(dict[bytes, int]):
    """How request headers are treated, by name. Short names are remembered; some servers accept names of megabytes."""

    def __missing__(self, name: bytes) -> int:
        treatment = _SPECIAL.get(name)
        if treatment is None:
            # Names with `_` are not replayed: servers and gateways mistake it for `-`.
            is_replayed = name not in _NOT_REPLAYED and b"_" not in name and _TOKEN.fullmatch(name) is not None
            if name.startswith(b"x-fal-"):
                treatment = _REPLAYED_FAL if is_replayed else _DROPPED_FAL
            else:
                treatment = _REPLAYED if is_replayed else _DROPPED
        if len(name) < _MAX_CACHED_NAME:
            if len(self) >= _MAX_CACHED_NAMES:
                self.clear()
            self[name] = treatment
        return treatment


_treatments = _Treatments()


class _KeptNames(dict[bytes, bytes]):
    """The lower case of response headers, by name; empty for those that are not kept. Short names are remembered.

    Raises `ValueError` for an invalid name.
    """

    def __missing__(self, name: bytes) -> bytes:
        lower = name.lower()
        if not _TOKEN.fullmatch(lower):
            raise ValueError(f"{name!r} is not a valid header name")
        kept = b"" if lower in _NOT_KEPT else lower
        if len(name) < _MAX_CACHED_NAME:
            if len(self) >= _MAX_CACHED_NAMES:
                self.clear()
            self[name] = kept
        return kept


_kept_names = _KeptNames()


def _without_named(
    kept: list[tuple[bytes, bytes]], headers: Headers, is_set_by_proxies: Callable[[bytes], bool]
) -> list[tuple[bytes, bytes]]:
    """Remove what `Connection` names, except headers that a proxy sets, which a client could remove otherwise."""
    named = _names([value for name, value in headers if name == b"connection"])
    return [pair for pair in kept if pair[0] not in named or is_set_by_proxies(pair[0])]


def _is_bad(value: bytes) -> bool:
    """Whether it contains what no header value may contain. Searching for one byte is the fastest search there is."""
    return _LF in value or _CR in value or _NUL in value


def _names(connection: Iterable[bytes]) -> frozenset[bytes]:
    """The names in `Connection`: `close, x-private` makes `x-private` a hop-by-hop header too."""
    return frozenset(part.strip().lower() for value in connection for part in value.split(b","))
