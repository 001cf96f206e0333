"""The queue's routes for pages of other origins (WHATWG Fetch standard, section "CORS protocol")."""

from __future__ import annotations

import json
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = b"GET, POST, PUT, PATCH, DELETE"
_HEADERS = (
    b"authorization, content-type, x-fal-request-start-timeout, x-fal-request-timeout, x-fal-queue-priority, "
    b"x-fal-runner-hint, x-fal-no-retry, x-fal-retry-config, x-fal-store-io, x-fal-object-lifecycle-preference, "
    b"idempotency-key, prefer"
)
"""Headers that are allowed if a preflight names none."""
_EXPOSED = (
    b"x-fal-request-id, x-fal-request-timeout-type, x-fal-error-type, x-fal-billable-units, x-fal-served-from, "
    b"retry-after, content-disposition, idempotency-replayed, preference-applied"
)
_MAX_AGE = b"7200"
"""Seconds for which a browser may remember a preflight; Chromium takes no more."""
_JSON = (b"content-type", b"application/json")
_VARY = (b"vary", b"origin")


class CORSMiddleware:
    """Wraps the queue: responds to preflights, and names in every response the origin that may read it; without cookies.

    A stored response may contain the application's own rules. The queue's rules replace them, but headers that the application
    exposes stay exposed.
    """

    def __init__(self, queue: ASGIApp, origins: Iterable[str]) -> None:
        self._queue = queue
        self._origins = frozenset(origin.encode() for origin in origins)
        self._open = b"*" in self._origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request to the queue."""
        asked = dict(scope["headers"])
        origin: bytes | None = asked.get(b"origin")
        grant = self._grant(origin)
        if scope["method"] == "OPTIONS" and origin is not None and b"access-control-request-method" in asked:
            await self._preflight(origin, grant, asked.get(b"access-control-request-headers", _HEADERS), send)
            return

        async def granting(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if not pair[0].startswith(b"access-control-allow-")]
                message = {**message, "headers": [*kept, *grant]}
            await send(message)

        await self._queue(scope, receive, granting)

    def _grant(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """The headers of a response to this origin."""
        exposed = (b"access-control-expose-headers", _EXPOSED)
        if self._open:
            return [(b"access-control-allow-origin", b"*"), exposed]
        if origin is None or origin.lower() not in self._origins:
            return [_VARY]  # caches must not serve it to allowed origins
        return [(b"access-control-allow-origin", origin), exposed, _VARY]

    async def _preflight(self, origin: bytes, grant: list[tuple[bytes, bytes]], wanted: bytes, send: Send) -> None:
        if grant == [_VARY]:
            detail = f"the origin {origin.decode('latin-1')[:200]!r} is not in 'cors_origins'"
            body = json.dumps({"detail": detail}).encode()
            start = {"status": 403, "headers": [_JSON, (b"content-length", b"%d" % len(body)), *grant]}
        else:
            body = b""
            allowed = [
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", wanted),
                (b"access-control-max-age", _MAX_AGE),
            ]
            start = {"status": 204, "headers": [*grant, *allowed]}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": body})
