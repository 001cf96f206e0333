"""One stored request into the wrapped application, its response out as it is produced (ASGI HTTP specification 2.x).

The application sees what a server would show it: one body, then silence until its response is complete, then
`http.disconnect`. It gets no extensions, so it never sends anything but plain response messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.types import Message

from queue_middleware.jobs.models import CHUNK_SIZE, ErrorType, Failure, Headers, StoredRequest, StoredResponse

from .headers import declared_length, kept_headers

App = Callable[[Any, Any, Any], Awaitable[Any]]
"""Any ASGI application, whatever names its author gives to the three types."""

FLUSH_SIZE = CHUNK_SIZE
"""Bytes of a streamed answer that are kept in memory before they are stored."""

_WITHOUT_BODY = frozenset({204, 304})


class ResponseTooLarge(Exception):
    """Raised out of `send` when the answer outgrows its limit; the application is meant to unwind."""


class NoResponse(Exception):
    """Raised by what is called in the application's place: there is no answer, and this is why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class ReplayOwner(Protocol):
    """The attempt that a replay belongs to."""

    async def store_part(self, number: int, data: bytes) -> None:
        """Store a part of the response while it is being produced."""

    def on_response(self, outcome: StoredResponse | Failure) -> None:
        """Called once, when the response is complete or has failed."""


class Replay:
    """The two channels of one call.

    `owner` is a weak reference: the application may keep the channels for longer than the attempt lasts.
    """

    # What most calls never change lies in the class: one is made for every request.
    is_complete = False
    is_disconnected = False
    _ended: asyncio.Event | None = None
    _storing: asyncio.Lock | None = None
    _status: int | None = None
    _declared: int | None = None
    _headers: Headers = ()
    _held = 0
    _size = 0
    _parts = 0
    _secret: bytes | None = None

    def __init__(self, request: StoredRequest, limit: int, owner: Callable[[], ReplayOwner | None]) -> None:
        self._body: bytes | None = request.body
        self._limit = limit
        self._owner = owner
        self._pieces: list[bytes] = []

    def redact(self, secret: str) -> None:
        """Of an ASCII text that is a secret nothing is kept of the answer but as many asterisks, wherever it stands."""
        self._secret = secret.encode("ascii")

    def _hidden(self, data: bytes) -> bytes:
        return data if self._secret is None else data.replace(self._secret, b"*" * len(self._secret))

    def disconnect(self) -> None:
        """Tell the application that its client has gone, and listen to it no longer."""
        self.is_disconnected = True
        self._over()

    async def receive(self) -> Message:
        """The body, once; then nothing until the answer is complete or nobody wants it any more."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not (self.is_complete or self.is_disconnected):
            # Made here and not at the start: most applications never ask a second time.
            self._ended = self._ended or asyncio.Event()
            await self._ended.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take one message. Like a server's, it does not wait for the last one to arrive."""
        if self.is_complete or self.is_disconnected:
            return  # drained: a thread that still produces must never block on us
        kind = message["type"]
        if kind == "http.response.start":
            self._headers = kept_headers(message.get("headers", ()))
            self._declared = declared_length(self._headers)
            self._status = _checked_status(message["status"])
        elif kind == "http.response.body":
            outcome: StoredResponse | Failure | None = self._keep(message.get("body", b""))
            more = message.get("more_body", False)
            if outcome is None and self._held >= (FLUSH_SIZE if more else FLUSH_SIZE + 1):
                await self._store_parts()
            if outcome is None and not more:
                outcome = self._answer()
            if outcome is not None:
                self.is_complete = True
                self._notify_owner(outcome)
                self._over()
                if more:
                    raise ResponseTooLarge

    def _notify_owner(self, outcome: StoredResponse | Failure) -> None:
        # Not in `send`: the traceback of what is raised there would keep the owner.
        if (owner := self._owner()) is not None:
            owner.on_response(outcome)

    def _answer(self) -> StoredResponse | Failure:
        """The whole answer; a failure where it is not as long as it says, because then no server could send it on."""
        if self._status not in _WITHOUT_BODY and self._declared is not None and self._declared != self._size:
            detail = f"the application announced {self._declared} bytes and sent {self._size}"
            return Failure(ErrorType.RUNNER_INCOMPLETE_RESPONSE, detail)
        headers, body = self._headers, b"".join(self._pieces)
        if self._secret is not None:
            headers, body = tuple((name, self._hidden(value)) for name, value in headers), self._hidden(body)
        return StoredResponse(self._status or 0, headers, body, self._parts)

    def _keep(self, body: bytes) -> Failure | None:
        """Hold a piece of the answer; a failure where the answer has become too large."""
        if self._status is None:
            raise RuntimeError("the response body was sent before the response start")
        if self._status in _WITHOUT_BODY:
            return None
        self._size += len(body)
        if self._size > self._limit:
            return Failure(ErrorType.RUNNER_SERVER_ERROR, f"the answer is larger than {self._limit} bytes")
        if body:
            self._pieces.append(bytes(body))
            self._held += len(body)
        return None

    async def _store_parts(self) -> None:
        """Store what is held but for its end, in parts of one size. Others may send meanwhile; each waits for its turn."""
        self._storing = self._storing or asyncio.Lock()
        async with self._storing:
            data, taken = self._hidden(b"".join(self._pieces)), len(self._pieces)
            # Of a secret that ends in the next piece the beginning is not to be stored.
            least = FLUSH_SIZE if self._secret is None else FLUSH_SIZE + len(self._secret)
            while len(data) > least and not self.is_complete:
                if (owner := self._owner()) is not None:
                    await owner.store_part(self._parts, data[:FLUSH_SIZE])
                self._parts += 1
                data = data[FLUSH_SIZE:]
                # At once: the application's own time limit may end the next wait.
                self._pieces[:taken], taken = [data], 1
                self._held -= FLUSH_SIZE

    def _over(self) -> None:
        if self._ended is not None:
            self._ended.set()

    def failure_of_unfinished_call(self, error: BaseException | None) -> Failure:
        """What an attempt is worth whose call ended before its answer was complete."""
        if isinstance(error, NoResponse):
            return error.failure
        if error is not None and self._status is None:
            return Failure(ErrorType.RUNNER_SERVER_ERROR, f"the application raised {type(error).__name__}")
        if error is not None:
            detail = f"the application raised {type(error).__name__} in the middle of its answer"
        elif self._status is None:
            detail = "the application returned without an answer"
        else:
            detail = "the application returned in the middle of its answer"
        return Failure(ErrorType.RUNNER_INCOMPLETE_RESPONSE, detail)


def _checked_status(status: Any) -> int:
    if isinstance(status, int) and 200 <= status <= 999:
        return int(status)  # it may be an http.HTTPStatus
    raise ValueError(f"the response status is {status!r}; a final one is a whole number from 200 to 999")
