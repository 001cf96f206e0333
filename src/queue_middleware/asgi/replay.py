"""Replays a stored request into the wrapped application and stores the response as it is produced (ASGI HTTP 2.x).

The application sees what a server would show it: one body, then nothing until its response is complete, then
`http.disconnect`. Its scope has no extensions, so it sends only plain response messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.types import Message

from queue_middleware.jobs.models import CHUNK_SIZE, ErrorType, Failure, Headers, StoredRequest, StoredResponse

from .headers import declared_length, kept_headers

App = Callable[[Any, Any, Any], Awaitable[Any]]
"""Any ASGI application; the parameters are untyped because applications name the three types differently."""

FLUSH_SIZE = CHUNK_SIZE
"""Bytes of a streamed response that are kept in memory before they are stored."""

_WITHOUT_BODY = frozenset({204, 304})


class ResponseTooLarge(Exception):
    """Raised by `send` when the response exceeds its limit, so that the application stops."""


class NoResponse(Exception):
    """Raised by what is called in place of the application if there is no response; `failure` is the reason."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class ReplayOwner(Protocol):
    """The attempt that a replay belongs to."""

    async def store_chunk(self, number: int, data: bytes) -> None:
        """Store a chunk of the response while it is being produced."""

    def on_response(self, outcome: StoredResponse | Failure) -> None:
        """Called once, when the response is complete or has failed."""


class Replay:
    """The `receive` and `send` of one call.

    `owner` is a weak reference: the application may keep the channels for longer than the attempt lasts.
    """

    __slots__ = (
        "_body", "_buffered", "_chunks", "_declared", "_ended", "_headers", "_limit", "_owner", "_pieces", "_secret", "_size",
        "_status", "_storing", "is_complete", "is_disconnected",
    )  # fmt: skip

    def __init__(self, request: StoredRequest, limit: int, owner: Callable[[], ReplayOwner | None]) -> None:
        self._body: bytes | None = request.body
        self._limit = limit
        self._owner = owner
        self._pieces: list[bytes] = []
        self.is_complete = self.is_disconnected = False
        self._ended: asyncio.Event | None = None
        self._storing: asyncio.Lock | None = None
        self._status: int | None = None
        self._declared: int | None = None
        self._headers: Headers = ()
        self._buffered = self._size = self._chunks = 0
        self._secret: bytes | None = None

    def redact(self, secret: str) -> None:
        """Replace a secret, an ASCII text, by asterisks of the same length wherever it appears in the response."""
        self._secret = secret.encode("ascii")

    def _redact(self, data: bytes) -> bytes:
        return data if self._secret is None else data.replace(self._secret, b"*" * len(self._secret))

    def disconnect(self) -> None:
        """Report to the application that its client has disconnected, and ignore what it sends from now on."""
        self.is_disconnected = True
        self._end()

    async def receive(self) -> Message:
        """The request body, once; then `http.disconnect` when the response is complete or no longer wanted."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not (self.is_complete or self.is_disconnected):
            # Created here and not at the start: most applications never call a second time.
            self._ended = self._ended or asyncio.Event()
            await self._ended.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Accept one message. This waits only when a chunk is full, until the chunk is stored."""
        if self.is_complete or self.is_disconnected:
            return  # discarded: a thread that still produces must never block here
        kind = message["type"]
        if kind == "http.response.start":
            self._headers = kept_headers(message.get("headers", ()))
            self._declared = declared_length(self._headers)
            self._status = _checked_status(message["status"])
        elif kind == "http.response.body":
            outcome: StoredResponse | Failure | None = self._buffer(message.get("body", b""))
            more = message.get("more_body", False)
            if outcome is None and self._buffered >= (FLUSH_SIZE if more else FLUSH_SIZE + 1):
                await self._store_chunks()
            if outcome is None and not more:
                outcome = self._complete_response()
            if outcome is not None:
                self.is_complete = True
                self._notify_owner(outcome)
                self._end()
                if more:
                    raise ResponseTooLarge

    def _notify_owner(self, outcome: StoredResponse | Failure) -> None:
        # Not in `send`: the traceback of an exception raised there would keep the owner alive.
        if (owner := self._owner()) is not None:
            owner.on_response(outcome)

    def _complete_response(self) -> StoredResponse | Failure:
        """The complete response; a failure if its length differs from `content-length`, because no server could send it."""
        if self._status not in _WITHOUT_BODY and self._declared is not None and self._declared != self._size:
            detail = f"the application declared {self._declared} bytes and sent {self._size}"
            return Failure(ErrorType.RUNNER_INCOMPLETE_RESPONSE, detail)
        headers, body = self._headers, b"".join(self._pieces)
        if self._secret is not None:
            headers, body = tuple((name, self._redact(value)) for name, value in headers), self._redact(body)
        return StoredResponse(self._status or 0, headers, body, self._chunks)

    def _buffer(self, body: bytes) -> Failure | None:
        """Keep a piece of the response; return a failure if the response has become too large."""
        if self._status is None:
            raise RuntimeError("the response body was sent before the response start")
        if self._status in _WITHOUT_BODY:
            return None
        self._size += len(body)
        if self._size > self._limit:
            return Failure(ErrorType.RUNNER_SERVER_ERROR, f"the response is larger than {self._limit} bytes")
        if body:
            self._pieces.append(bytes(body))
            self._buffered += len(body)
        return None

    async def _store_chunks(self) -> None:
        """Store what is kept, except its end, in chunks of equal size. Concurrent senders wait for each other."""
        self._storing = self._storing or asyncio.Lock()
        async with self._storing:
            data, taken = self._redact(b"".join(self._pieces)), len(self._pieces)
            # If a secret ends in the next piece, its beginning must not be stored yet.
            least = FLUSH_SIZE if self._secret is None else FLUSH_SIZE + len(self._secret)
            while len(data) > least and not self.is_complete:
                if (owner := self._owner()) is not None:
                    await owner.store_chunk(self._chunks, data[:FLUSH_SIZE])
                self._chunks += 1
                data = data[FLUSH_SIZE:]
                # Updated at once: a time limit of the application may cancel the next wait.
                self._pieces[:taken], taken = [data], 1
                self._buffered -= FLUSH_SIZE

    def _end(self) -> None:
        if self._ended is not None:
            self._ended.set()

    def failure_of_unfinished_call(self, error: BaseException | None) -> Failure:
        """The failure of an attempt whose call ended before its response was complete."""
        if isinstance(error, NoResponse):
            return error.failure
        if error is not None and self._status is None:
            return Failure(ErrorType.RUNNER_SERVER_ERROR, f"the application raised {type(error).__name__}")
        if error is not None:
            detail = f"the application raised {type(error).__name__} in the middle of its response"
        elif self._status is None:
            detail = "the application returned without a response"
        else:
            detail = "the application returned in the middle of its response"
        return Failure(ErrorType.RUNNER_INCOMPLETE_RESPONSE, detail)


def _checked_status(status: Any) -> int:
    if isinstance(status, int) and 200 <= status <= 999:
        return int(status)  # it may be an http.HTTPStatus
    raise ValueError(f"the response status is {status!r}; a final status is an integer from 200 to 999")
