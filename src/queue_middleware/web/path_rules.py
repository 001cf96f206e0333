"""Decides which paths of the wrapped application may be queued."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from urllib.parse import unquote, unquote_to_bytes

from queue_middleware.errors import BadRequest, NotAllowed, UriTooLong
from queue_middleware.settings import Settings

MAX_TARGET_BYTES = 2048
"""Bytes of path and query of the queued call together."""

MAX_QUERY_BYTES = 16 * 1024
"""Bytes of a query that holds the queue's own parameters. Some servers take megabytes, and parsing those takes seconds."""

_PLAIN = re.compile(r"(/[A-Za-z0-9_~-]+)+/?")
"""A path with nothing in it that could be misread; nearly all are."""


class PathPatterns:
    """The patterns of paths in an option."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [re.compile(translate(pattern)) for pattern in patterns]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, target: str) -> bool:
        """Whether a pattern matches a path, percent-encoded and in Latin-1, as the application sees it: decoded."""
        path = unquote(target.encode("latin-1"))
        return any(pattern.match(path) for pattern in self._patterns)


class PathRules:
    """The path rules of one queue: its prefix and the option `paths`."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.prefix
        self._patterns = PathPatterns(settings.paths)

    def check(self, target: str) -> None:
        """Check a percent-encoded path. Raises `BadRequest`, `NotAllowed`."""
        check_target(target, self._prefix)
        if self._patterns and not self._patterns.match(target):
            raise NotAllowed(f"the path {target!r} may not be queued; the option 'paths' lists the allowed paths")


def check_target(target: str, prefix: str) -> None:
    """Refuse a percent-encoded path that an intermediary may read differently. Raises `BadRequest`.

    An encoded slash is legal and reaches the application as it would in a direct call.
    """
    if _PLAIN.fullmatch(target) and not target.startswith(prefix):
        return
    if "\\" in target or re.search(r"[\x00-\x20\x7f]", target):
        raise BadRequest("the path contains a backslash, a space or a control character")
    for segment in target.split("/")[1:-1]:
        if not segment:
            raise BadRequest("the path contains an empty segment ('//')")
    decoded = unquote_to_bytes(target)
    if re.search(rb"[\x00-\x1f\x7f\\]", decoded):
        raise BadRequest("the path contains a percent-encoded backslash or control character")
    segments = decoded.split(b"/")
    if b"." in segments or b".." in segments:
        raise BadRequest("the path contains a '.' or '..' segment")
    own = prefix.encode()
    if decoded == own or decoded.startswith(own + b"/"):
        raise BadRequest("a queue route cannot be queued")


def check_query(query: bytes) -> None:
    """Raise `UriTooLong` for a query above `MAX_QUERY_BYTES`."""
    if len(query) > MAX_QUERY_BYTES:
        raise UriTooLong(f"the query is longer than {MAX_QUERY_BYTES} bytes")


def check_length(target: str, query: bytes) -> None:
    """Raise `UriTooLong` for a call whose path and query exceed `MAX_TARGET_BYTES`."""
    if len(target) + len(query) > MAX_TARGET_BYTES:
        raise UriTooLong(f"path and query of the queued call are longer than {MAX_TARGET_BYTES} bytes")
