"""Submissions: judged before their body is read, bounded in memory until they are stored (fal queue contract, section 2)."""

from __future__ import annotations

import re
from fnmatch import translate
from typing import Any
from urllib.parse import unquote

from queue_middleware.errors import HeadersTooLarge, NotAllowed, TooLarge, Unavailable
from queue_middleware.headers import replayed_headers
from queue_middleware.models import Headers, NewJob, Receipt, StoredRequest
from queue_middleware.runtime import Runtime
from queue_middleware.wire import fal
from queue_middleware.wire.knobs import Knobs, read_knobs

from .call import Call, ClientGone

_LARGEST_HEADERS = 32 * 1024
_INTAKE = 256 * 2**20
"""Bytes of submissions that may be in memory at once, on their way to the database."""


class Submissions:
    """From a call to a stored job."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._paths = [re.compile(translate(pattern)) for pattern in runtime.settings.paths]
        self._intake = 0

    async def take(self, call: Call) -> Receipt:
        """Judge, read and store. Raises what is wrong with it, or `ClientGone`; then nothing was stored."""
        headers: Headers = tuple(call.scope["headers"])
        query, parameters = fal.split_query(call.scope["query_string"])
        call.body_is_unread = True
        self._check(headers, call.route.target, query)
        knobs = read_knobs(headers, parameters, self._settings.max_attempts)
        if knobs.webhook is not None:
            self._runtime.check_webhook(knobs.webhook)
        try:
            body = await self._body(call, headers)
            call.body_is_unread = False
            return await self._runtime.submit(_new_job(call, headers, query, knobs, body))
        finally:
            self._intake -= call.size

    def _check(self, headers: Headers, target: str, query: bytes) -> None:
        size = sum([len(name) + len(value) + 4 for name, value in headers])
        if size > _LARGEST_HEADERS:
            raise HeadersTooLarge(f"the headers take {size} bytes, the most is {_LARGEST_HEADERS}")
        fal.check_length(target, query)
        fal.check_target(target, self._settings.prefix)
        if self._paths and not any(pattern.match(unquote(target)) for pattern in self._paths):
            raise NotAllowed(f"the path {target!r} may not be queued; the option 'paths' names those that may")

    async def _body(self, call: Call, headers: Headers) -> bytes:
        """The whole body; refused as soon as it is known to be too large, or to be too much together with others'."""
        most = self._settings.max_request_body
        for name, value in headers:
            if name == b"content-length" and value.isdigit() and (len(value) > 15 or int(value) > most):
                raise TooLarge(f"the body has {value[:15].decode()} bytes or more, the most is {most}")
        pieces: list[bytes] = []
        while True:
            message = await call.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            pieces.append(piece)
            call.size += len(piece)
            self._intake += len(piece)
            if call.size > most:
                raise TooLarge(f"the body is larger than {most} bytes")
            if self._intake > _INTAKE and self._intake > 2 * most:
                raise Unavailable("too many large submissions at once", 5)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _new_job(call: Call, headers: Headers, query: bytes, knobs: Knobs, body: bytes) -> NewJob:
    scope = call.scope
    client = _address(scope.get("client"))
    server = scope.get("server")
    return NewJob(
        request=StoredRequest(
            method=scope["method"],
            root_path=scope.get("root_path", ""),
            raw_path=(call.address.root + call.route.target).encode("latin-1"),
            query=query,
            headers=replayed_headers(headers),
            client=client,
            server=(str(server[0]), server[1]) if server and isinstance(server[1], int | None) else None,
            scheme=scope.get("scheme", "http"),
            http_version=scope.get("http_version", "1.1"),
            body=body,
        ),
        client=client[0] if client else "",
        retry=knobs.retry,
        priority=knobs.priority,
        start_timeout=knobs.start_timeout,
        webhook=knobs.webhook,
        max_queue_length=knobs.max_queue_length,
        short_lived=not knobs.store_io,
        events=knobs.events,
    )


def _address(client: Any) -> tuple[str, int] | None:
    """Host and port; what is neither, for instance the path of a socket, is no address to replay."""
    if client and isinstance(client[0], str) and isinstance(client[1], int):
        return client[0], client[1]
    return None
