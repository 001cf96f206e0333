"""One request to the queue's routes: what is known of it, how its body is read, how it is responded to."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from starlette.types import Message, Receive, Scope, Send

from queue_middleware.asgi.headers import RequestHeaders
from queue_middleware.errors import BodyTooSlow, QueueError, TooLarge, Unavailable
from queue_middleware.jobs.models import Headers

from .auth import client_of
from .preferences import VARY
from .urls import SplitPath

RouteT = TypeVar("RouteT")

MAX_SUBMISSION_BYTES = 256 * 2**20
"""Bytes of submissions and tasks that may be in memory at once, on their way to the database."""
MAX_CALLBACK_BYTES = 64 * 2**20
"""The same for callbacks and signals. A provider calls once, so its budget is separate from that of clients."""
MIN_RATE = 1024
"""Bytes per second, averaged over `timeout`, below which a body has stalled."""
_STALLED_AFTER = 5.0
"""Seconds after which a stalled body gives way to others when the memory budget is used up."""
_SMALL_CHUNK = 4096
"""Chunks below this many bytes are joined: as an object of its own a small chunk may take twenty times its size."""
_CHECK_INTERVAL = 1.0
"""Seconds between two checks of the bodies that are being read. One timer serves all; none runs while bodies arrive at once."""
_JSON = (b"content-type", b"application/json")


class ClientDisconnected(Exception):
    """The client closed the connection before its request was complete."""


class QueueRequest(Generic[RouteT]):
    """State of one request while it is served."""

    __slots__ = (
        "applied", "body_unread", "cancelling", "headers", "identity", "interruption", "measured", "receive", "request_id",
        "route", "scope", "send", "size", "split_path", "stalled", "started",
    )  # fmt: skip

    split_path: SplitPath
    route: RouteT
    """Set by the endpoints that match the request."""
    headers: RequestHeaders
    """Set by the router for an endpoint that changes something."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.request_id = ""
        """Sent as `X-Fal-Request-Id`; empty where no request is named."""
        self.applied = b""
        """Sent as `Preference-Applied`; empty if the client has no preference or it was not applied."""
        self.identity: str | None = None
        """Submitter identity; None without authentication."""
        self.body_unread = False
        """Whether an error response has to close the connection, because the body was not read to its end."""
        self.started = False
        self.size = 0
        """Bytes of the body that are in memory."""
        self.measured = 0
        """`size` at the last check that met `MIN_RATE`. Kept by `BodyReader`."""
        self.stalled = 0
        """Checks of `BodyReader` since then."""
        self.interruption: QueueError | None = None
        """Why the body is not read any further."""
        self.cancelling = 0
        """How often the task had been cancelled before that interruption."""

    @property
    def client(self) -> str:
        """The client that limits count this request for, as in `NewJob.client`."""
        return client_of(self.identity, self.scope)

    def add_applied(self, preference: bytes) -> None:
        """Name a preference in `Preference-Applied`."""
        self.applied += b", " + preference if self.applied else preference

    async def wait_for_disconnect(self) -> None:
        """Return when the client closes the connection. Call it when the body has been read or will not be.

        Does not return if `receive` repeats the end of the body, as that of some middlewares does without ever waiting.
        """
        has_ended = False
        while (message := await self.receive())["type"] != "http.disconnect":
            if has_ended:
                await asyncio.get_running_loop().create_future()
            has_ended = not message.get("more_body", False)

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Begin a response whose body follows through `send`."""
        self.started = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def respond_empty(self) -> None:
        """Send 204."""
        named = [(b"x-fal-request-id", self.request_id.encode())] if self.request_id else []
        await self.start(204, [(b"cache-control", b"no-store"), *named])
        await self.send({"type": "http.response.body", "body": b""})

    async def respond(self, status: int, body: bytes, extra: Headers = ()) -> None:
        """Send a complete JSON response."""
        if self.started:
            # Raised into the server, which closes the connection.
            raise RuntimeError("the response cannot be completed: its body could not be read")
        self.started = True
        await self.send({"type": "http.response.start", "status": status, "headers": self._json_headers(len(body), extra)})
        await self.send({"type": "http.response.body", "body": body})

    async def start_json(self, status: int, length: int, extra: Headers = ()) -> None:
        """Begin a JSON response of `length` bytes, which follow through `send`."""
        await self.start(status, self._json_headers(length, extra))

    def _json_headers(self, length: int, extra: Headers) -> list[tuple[bytes, bytes]]:
        headers = [_JSON, (b"content-length", b"%d" % length), *extra]
        if self.applied:
            headers.append((b"preference-applied", self.applied))
            if VARY not in extra:
                headers.append(VARY)
        if self.request_id:
            headers.append((b"x-fal-request-id", self.request_id.encode()))
        return headers


class Endpoint(NamedTuple):
    """What a route does, and what the router checks before. Made once per operation, not per request."""

    serve: Callable[[QueueRequest[Any]], Awaitable[None]]
    """Sends the response, or raises a `QueueError` before the response is started."""
    changes: bool
    """Whether it changes something, so that pages of other sites must not make a browser send it."""
    is_public: bool
    """Whether it is served without authentication."""
    needs_queue: bool = True
    """Whether it is served only while the queue runs."""
    submits: bool = False
    """Whether it stores a request, so that its errors are counted as refusals."""


class BodyReader:
    """Reads request bodies within a memory budget. Call `done` once a body is stored or refused. Bound to one event loop.

    `max_size`: bytes of one body. `budget`: bytes of all bodies together. `timeout`: seconds within which
    `MIN_RATE * timeout` bytes have to arrive, again and again until the end of the body.

    When the budget is used up, a stalled body gives way, or else a body of the client that uses the most: bodies of one client
    do not keep out those of others, and a client that is alone may use the whole budget.
    """

    def __init__(self, max_size: int, budget: int, timeout: float) -> None:
        self._max_size = max_size
        self._budget = max(budget, 2 * max_size)
        self._window = MIN_RATE * timeout
        self._interval = min(_CHECK_INTERVAL, timeout / 4)
        self._max_stalled = math.ceil(timeout / self._interval)
        self._held = 0
        self._reading: dict[QueueRequest[Any], asyncio.Task[Any]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop in which the next check is scheduled; None while nothing is read."""
        self._thread = 0
        """The thread of that loop."""

    async def read(self, request: QueueRequest[Any], lengths: Iterable[bytes]) -> bytes:
        """Return the whole body. `lengths`: the values of `Content-Length`.

        Raises `TooLarge` as soon as that is known, `BodyTooSlow`, `Unavailable`, and `ClientDisconnected`.
        """
        for value in lengths:
            if value.isdigit() and (len(value) > 15 or int(value) > self._max_size):
                raise TooLarge(f"the body has {value[:15].decode()} bytes or more; the maximum is {self._max_size}")
        # With the loop that is known: to look for the running loop, Python 3.11 asks the system for the id of the process.
        task = asyncio.current_task(self._loop) if self._thread == threading.get_ident() else None
        self._reading[request] = task or self._begin_checks()
        try:
            message = await request.receive()
            body = message.get("body", b"")
            if message["type"] == "http.disconnect" or message.get("more_body", False) or type(body) is not bytes:
                return await self._join(request, message)
            self._count(request, len(body))
            request.body_unread = False
            return body
        except asyncio.CancelledError:
            # A cancellation from elsewhere takes precedence over that of `_interrupt`, as in `asyncio.timeout`.
            if request.interruption is None or self._reading[request].uncancel() > request.cancelling:
                raise
            raise request.interruption from None
        finally:
            del self._reading[request]

    async def _join(self, request: QueueRequest[Any], message: Message) -> bytes:
        """The body that begins with `message`, if it is not the only one."""
        chunks: list[bytes | bytearray] = []
        while True:
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            chunk = message.get("body", b"")
            if chunks and len(chunk) < _SMALL_CHUNK:
                if not isinstance(chunks[-1], bytearray):
                    chunks.append(bytearray())
                chunks[-1] += chunk
            else:
                chunks.append(chunk)
            self._count(request, len(chunk))
            if not message.get("more_body", False):
                request.body_unread = False
                return bytes(chunks[0]) if len(chunks) == 1 else b"".join(chunks)
            message = await request.receive()

    def _count(self, request: QueueRequest[Any], size: int) -> None:
        """Count bytes that have arrived, and make room for them."""
        request.size += size
        self._held += size
        if request.size > self._max_size:
            raise TooLarge(f"the body is larger than {self._max_size} bytes")
        while self._held > self._budget:
            self._make_room(request)

    def done(self, request: QueueRequest[Any]) -> None:
        """Return the memory of the request's body to the budget. Idempotent."""
        self._held -= request.size
        request.size = 0

    # --- checks of the bodies that are being read

    def _begin_checks(self) -> asyncio.Task[Any]:
        """Schedule checks in the running event loop, which has none. Returns the current task."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - servers call applications in tasks
        self._schedule_check(loop)
        return task

    def _schedule_check(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._thread = loop, threading.get_ident()
        loop.call_later(self._interval, self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count checks instead of seconds: while a handler blocks the event loop, what has arrived cannot be read."""
        if self._loop is not loop:
            return
        for request in list(self._reading):
            request.stalled += 1
            if request.size - request.measured >= self._window:
                request.measured, request.stalled = request.size, 0
            elif request.stalled > self._max_stalled:
                self._interrupt(request, _too_slow())
        if self._reading:
            self._schedule_check(loop)
        else:
            self._loop, self._thread = None, 0

    def _make_room(self, request: QueueRequest[Any]) -> None:
        """End another body so that this one can go on. Raises `Unavailable` if this one has to give way."""
        others = [other for other in self._reading if other is not request and other.size]
        slowest = max(others, key=lambda other: other.stalled, default=request)
        if slowest.stalled * self._interval >= _STALLED_AFTER:
            self._interrupt(slowest, _too_slow())
            return
        used: defaultdict[str, int] = defaultdict(int)
        for other in (request, *others):
            used[other.client] += other.size
        largest = max(used, key=lambda client: used[client])
        if used[largest] <= used[request.client]:
            raise _over_budget()
        self._interrupt(
            max((other for other in others if other.client == largest), key=lambda other: other.size), _over_budget()
        )

    def _interrupt(self, request: QueueRequest[Any], error: QueueError) -> None:
        task = self._reading[request]
        if request.interruption is None:
            request.interruption, request.cancelling = error, task.cancelling()
            self.done(request)
            task.cancel()


def _too_slow() -> BodyTooSlow:
    return BodyTooSlow("the body arrived too slowly or stopped arriving; send the request again")


def _over_budget() -> Unavailable:
    return Unavailable("too many large submissions at once", 5)
