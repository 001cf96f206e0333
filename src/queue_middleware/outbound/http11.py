"""One client connection of HTTP/1.1: sends a request and reads no more of the response than is wanted.

An ordinary exchange is written and parsed here, with `http_head`; h11 handles all others (`Connection._leave_to_h11`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import h11

from queue_middleware.jobs.models import Headers

from .http_head import Request, parse_response_head

MAX_READ = 64 * 1024
"""Bytes of a response body after which `post` reads no further, and which are buffered of a streamed one."""
MAX_BODY_PREFIX = 1024
"""Bytes of a response body that are kept for the operator."""
_MAX_HEAD = 64 * 1024


@dataclass(frozen=True, slots=True)
class StreamBody:
    """A request body that is not in memory: its length, and a function that yields it from the start each time."""

    length: int
    chunks: Callable[[], AsyncIterator[bytes]]


class ConnectionClosed(Exception):
    """The connection ended, or the bytes received are not HTTP. `untouched`: no byte of a response had arrived."""

    def __init__(self, *, untouched: bool) -> None:
        super().__init__("the connection ended without an HTTP response")
        self.untouched = untouched


class ResponseBody:
    """A response body that is read as a whole. Reading pauses while more than `MAX_READ` bytes wait to be consumed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self.is_complete = False
        """Whether the end of the body has arrived."""

    def put(self, data: bytes) -> None:
        """Append a piece of the body."""
        self._chunks.append(data)
        self._size += len(data)
        self._changed.set()
        if self._size >= MAX_READ:
            self._connection.read(on=False)

    def end(self, *, is_complete: bool) -> None:
        """Nothing more arrives."""
        self.is_complete = self.is_complete or is_complete
        self._changed.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The pieces of the body. Raises `ConnectionClosed` if it ends early."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._size -= len(chunk)
                yield chunk
            if self._connection.is_complete:
                break
            self._changed.clear()
            self._connection.read(on=True)
            await self._changed.wait()
        if not self.is_complete:
            raise ConnectionClosed(untouched=False)


class Connection(asyncio.Protocol):
    """Made by `loop.create_connection`. Call `send`, `wait_complete`, then `reset` for another exchange; `abort` at the end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self._transport: asyncio.Transport | None = None
        self._ordinary: tuple[Request, bytes] | None = None
        """The request and its body while h11 does not take part in the exchange."""
        self._missing: int | None = None
        """Bytes of an ordinary response's body that have not arrived, negative if there are too many; None before its head."""
        self._head: asyncio.Future[tuple[int, Headers]] | None = None
        self._end: asyncio.Future[None] | None = None
        self.is_complete = True
        """Whether the response has ended, or `MAX_READ` bytes of it were read."""
        self._writable: asyncio.Future[None] | None = None
        """Pending while the transport's write buffer is full."""
        self._untouched = True
        self._body_size = 0
        self.exchanges = 0
        """Exchanges so far."""
        self.body_prefix = bytearray()
        """The first bytes of the response body."""
        self._response_body: ResponseBody | None = None

    # --- callbacks of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is ready."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Parse received bytes. Bytes outside an exchange close the connection: they belong to no request."""
        self._untouched = False
        if self.is_complete:
            self.abort()
        elif self._ordinary is None:
            self._parse(data)
        elif self._missing is not None:
            self._take_ordinary_body(self._missing, data)
        elif head := parse_response_head(data):
            self._take_head(head.status, head.headers)
            self._take_ordinary_body(head.length, data[head.size :])
        else:
            self._leave_to_h11(*self._ordinary)
            self._parse(data)

    def eof_received(self) -> None:
        """The other side will send nothing more. This ends the body of a response that declares no length."""
        if self._ordinary is None:
            self._parse(b"")

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is closed: end whatever waits for it."""
        self._transport = None
        self.resume_writing()
        if not self.is_complete and self._ordinary is None:
            self._parse(b"")
        self._fail()

    def pause_writing(self) -> None:
        """The transport's write buffer is full."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """The transport's write buffer has room again."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # --- one exchange

    @property
    def is_open(self) -> bool:
        """Whether another exchange can begin."""
        return self._transport is not None and not self._transport.is_closing()

    def stream_response(self) -> ResponseBody:
        """Read the whole body of the next response, into the returned object."""
        self._response_body = ResponseBody(self)
        return self._response_body

    def read(self, *, on: bool) -> None:
        """Resume or pause reading. Idempotent."""
        if self._transport is not None and not self._transport.is_closing():
            if on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    async def send(self, request: Request, body: bytes | StreamBody) -> tuple[int, Headers]:
        """Send the request; return status and headers of the response, which may arrive before the body was sent.

        Raises `ConnectionClosed`, and `h11.LocalProtocolError` for a request that is not valid.
        """
        self._head = self._loop.create_future()
        self._untouched, self._body_size, self.is_complete = True, 0, False
        self._ordinary = self._missing = self._end = None
        self.exchanges += 1
        self.body_prefix.clear()
        if not self.is_open:
            raise ConnectionClosed(untouched=True)  # TLS can end together with its handshake; h11 sends nothing after that
        if isinstance(body, StreamBody):
            self._write(self._http.send(request.for_h11()) or b"")
            await self._send_stream(body)
        elif head := request.encode(len(body)):
            self._ordinary = request, body
            self._write(head + body)  # in one piece: two writes may become two packets
        else:
            self._write(self._leave_to_h11(request, body))
        return await self._head

    def _leave_to_h11(self, request: Request, body: bytes) -> bytes:
        """Let h11 parse the response to this request. Returns the request as h11 writes it."""
        self._ordinary = None
        events = request.for_h11(), h11.Data(body), h11.EndOfMessage()
        return b"".join([self._http.send(event) or b"" for event in events])

    async def _send_stream(self, body: StreamBody) -> None:
        async for chunk in body.chunks():
            if self._head is None or self._head.done():
                return  # the response has arrived; the rest of the request changes nothing
            self._write(self._http.send(h11.Data(chunk)) or b"")
            if self._writable is not None:
                await self._writable
        self._http.send(h11.EndOfMessage())

    async def wait_complete(self) -> None:
        """Wait until `is_complete`."""
        if not self.is_complete:
            self._end = self._loop.create_future()
            await self._end

    def reset(self) -> bool:
        """Prepare for another exchange; False if that is not possible."""
        if not self.is_open or not (self._reset_h11() if self._ordinary is None else self._missing == 0):
            return False
        self._response_body = None
        self.read(on=True)  # the end may have arrived while reading was paused
        return True

    def _reset_h11(self) -> bool:
        ended = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        if not ended or self._http.trailing_data[0]:  # trailing: a response to a request that was not sent
            return False
        self._http.start_next_cycle()
        return True

    def abort(self) -> None:
        """Close the connection at once. Idempotent."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            raise ConnectionClosed(untouched=self._untouched)
        self._transport.write(data)

    # --- parsing

    def _parse(self, data: bytes) -> None:
        try:
            self._http.receive_data(data)
            while self._handle(self._http.next_event()):
                pass
        except (h11.ProtocolError, RuntimeError):  # RuntimeError: data after the end
            self._fail()
            self.abort()

    def _handle(self, event: Any) -> bool:
        """Handle one event of h11; whether there may be another one."""
        if isinstance(event, h11.Response):
            self._take_head(event.status_code, tuple((bytes(name), bytes(value)) for name, value in event.headers))
        elif isinstance(event, h11.Data):
            return self._take_body(bytes(event.data))
        elif not isinstance(event, h11.InformationalResponse):
            if isinstance(event, h11.EndOfMessage):
                self._finish(is_complete=True)
            return False
        return True

    def _take_head(self, status: int, headers: Headers) -> None:
        if self._head is not None and not self._head.done():
            self._head.set_result((status, headers))
            self.resume_writing()  # ends `_send_stream`: the other side may read no further

    def _take_ordinary_body(self, missing: int, data: bytes) -> None:
        if piece := data[:missing]:
            self._take_body(piece)
        self._missing = missing - len(data)
        if self._missing <= 0:
            self._finish(is_complete=True)

    def _take_body(self, data: bytes) -> bool:
        """Take a piece of the body. Whether more of it is wanted."""
        if self._response_body is not None:
            self._response_body.put(data)
            return True
        self.body_prefix += data[: MAX_BODY_PREFIX - len(self.body_prefix)]
        self._body_size += len(data)
        if self._body_size < MAX_READ:
            return True
        self._finish()
        return False

    def _finish(self, *, is_complete: bool = False) -> None:
        self.is_complete = True
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
        if self._response_body is not None:
            self._response_body.end(is_complete=is_complete)

    def _fail(self) -> None:
        """No response will arrive. A response whose body ends early counts as a response."""
        if self._head is not None and not self._head.done():
            self._head.set_exception(ConnectionClosed(untouched=self._untouched))
            self._head.exception()  # marks it as retrieved: the caller may no longer wait
        self._finish()
