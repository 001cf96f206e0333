"""Reads the header `Idempotency-Key` of submissions and tasks, and makes the key that is stored."""

from __future__ import annotations

from typing import Any

from queue_middleware.asgi.headers import RequestHeaders
from queue_middleware.background import ThreadLimiter
from queue_middleware.errors import BadRequest
from queue_middleware.jobs.idempotency import HEADER, IdempotencyKey, fingerprint, read_key
from queue_middleware.jobs.models import Headers
from queue_middleware.settings import Settings

from .path_rules import PathPatterns
from .request import QueueRequest

REPLAYED: Headers = ((b"idempotency-replayed", b"true"),)
"""Header of the response to a repeated submission."""


class IdempotencyKeys:
    """The keys of one queue: which paths need one, and which headers belong to a request."""

    def __init__(self, settings: Settings) -> None:
        self._patterns = PathPatterns(settings.require_idempotency_key)
        self._names = tuple(name.encode() for name in settings.idempotency_headers if not name.endswith("*"))
        self._prefixes = tuple(name[:-1].encode() for name in settings.idempotency_headers if name.endswith("*"))
        self._lane = ThreadLimiter()
        self.are_required = bool(self._patterns)
        """Whether a path needs a key."""

    def read(self, headers: RequestHeaders) -> str | None:
        """The key that a request has. Raises `BadRequest` if it cannot be read."""
        return read_key(headers.noted_values(b"idempotency-key"))

    def require(self, key: str | None, path: str) -> None:
        """Raise `BadRequest` if there is no key and the path of the call, as for `PathPatterns.match`, needs one."""
        if key is None and self._patterns.match(path):
            raise BadRequest(
                f"submissions to {path[:200]!r} need the header {HEADER}; "
                "send a new value for each request, e.g. a UUID, and the same value when you repeat the request"
            )

    async def make(self, request: QueueRequest[Any], key: str, path: bytes, query: bytes, body: bytes) -> IdempotencyKey:
        """The key of a request. `path`, `query` and `body` are those that distinguish it from others with the same key."""
        parts = [request.scope["method"].encode("latin-1"), path, query, *self._headers(request.scope["headers"]), body]
        return IdempotencyKey(request.identity or "", key, await self._lane.run(len(body), fingerprint, parts))

    def _headers(self, headers: Headers) -> list[bytes]:
        if not (self._names or self._prefixes):
            return []
        chosen = [pair for pair in headers if pair[0] in self._names or pair[0].startswith(self._prefixes)]
        return [part for pair in sorted(chosen, key=lambda pair: pair[0]) for part in pair]
