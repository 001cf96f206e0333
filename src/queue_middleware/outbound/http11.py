"""One HTTP/1.1 connection as a client: sends a request, reads no more of the answer than is wanted. The grammar is h11's."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import h11

from queue_middleware.jobs.models import Headers

MAX_READ = 64 * 1024
"""Bytes of an answer after which we have heard enough."""
MAX_KEPT = 1024
"""Bytes of it that are kept."""
_LONGEST_HEAD = 64 * 1024


@dataclass(frozen=True, slots=True)
class Stream:
    """A body that is not in memory: how long it is, and how it is had, from the start each time."""

    length: int
    chunks: Callable[[], AsyncIterator[bytes]]


class Broken(Exception):
    """The connection ended, or what came was not HTTP. `untouched` where no byte of an answer had come."""

    def __init__(self, *, untouched: bool) -> None:
        super().__init__("the connection ended without an HTTP answer")
        self.untouched = untouched


class Arrivals:
    """The body of an answer on its way to whoever wants all of it. What is not fetched is not read far ahead."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self.is_whole = False
        """Whether the end has arrived."""

    def put(self, data: bytes) -> None:
        """A piece has arrived."""
        self._chunks.append(data)
        self._size += len(data)
        self._news.set()
        if self._size >= MAX_READ:
            self._connection.read(on=False)

    def end(self, *, is_whole: bool) -> None:
        """Nothing more arrives."""
        self.is_whole = self.is_whole or is_whole
        self._news.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The pieces. Raises `Broken` where the body breaks off."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._size -= len(chunk)
                yield chunk
            if self._connection.is_over:
                break
            self._news.clear()
            self._connection.read(on=True)
            await self._news.wait()
        if not self.is_whole:
            raise Broken(untouched=False)


class Connection(asyncio.Protocol):
    """Made by `loop.create_connection`. `send`, `over`, and if it can be recycled again; `abort` at the end in any case."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        self._transport: asyncio.Transport | None = None
        self._head: asyncio.Future[h11.Response] | None = None
        self._end: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._untouched = True
        self._seen = 0
        self.used = 0
        """Exchanges so far."""
        self.kept = bytearray()
        """The beginning of the answer's body."""
        self._arrivals: Arrivals | None = None

    # --- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._untouched = False
        if self.is_over:
            self.abort()  # nobody asked
            return
        self._advance(data)

    def eof_received(self) -> None:
        """See `asyncio.Protocol`. An answer without a length ends here."""
        self._advance(b"")

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        self.resume_writing()
        if self._end is not None and not self._end.done():
            self._advance(b"")
        self._break()

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # --- one exchange

    @property
    def is_open(self) -> bool:
        """Whether another exchange can begin."""
        return self._transport is not None and not self._transport.is_closing()

    def fetch_all(self) -> Arrivals:
        """Of the next answer all of the body is wanted; it will be in here."""
        self._arrivals = Arrivals(self)
        return self._arrivals

    def read(self, *, on: bool) -> None:
        """Go on reading, or wait. Repeatable."""
        if self._transport is not None and not self._transport.is_closing():
            if on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    async def send(self, request: h11.Request, body: bytes | Stream) -> tuple[int, Headers]:
        """Status and headers of the answer, which may come before all is sent. Raises `Broken`."""
        self._head, self._end = self._loop.create_future(), self._loop.create_future()
        self._untouched, self._seen = True, 0
        self.used += 1
        self.kept.clear()
        if not self.is_open:
            raise Broken(untouched=True)  # TLS can bring the end together with its handshake; h11 sends nothing after it
        head = self._http.send(request) or b""
        if isinstance(body, bytes):
            # In one piece: h11 hands the body through, and two writes may be two packets.
            sent = b"".join((head, self._http.send(h11.Data(body)) or b"", self._http.send(h11.EndOfMessage()) or b""))
            self._write(sent)
        else:
            self._write(head)
            await self._pour(body)
        response = await self._head
        return response.status_code, _headers(response.headers)

    async def _pour(self, body: Stream) -> None:
        async for chunk in body.chunks():
            if self._head is None or self._head.done():
                return  # it has been answered already; the rest is of no interest
            self._write(self._http.send(h11.Data(chunk)) or b"")
            if self._room is not None:
                await self._room
        self._http.send(h11.EndOfMessage())

    @property
    def is_over(self) -> bool:
        """Whether the answer has ended, or as much of it was read as we read."""
        return self._end is None or self._end.done()

    async def over(self) -> None:
        """Wait until it is."""
        if self._end is not None:
            await self._end

    def recycle(self) -> bool:
        """Make ready for another exchange; False where that is not possible."""
        if not self.is_open or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        if self._http.trailing_data[0]:
            return False  # an answer to something we have not asked yet
        self._http.start_next_cycle()
        self._arrivals = None
        self.read(on=True)  # the end may have come while what was before it had not been fetched
        return True

    def abort(self) -> None:
        """Let go of it at once. Repeatable."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            raise Broken(untouched=self._untouched)
        self._transport.write(data)

    def _advance(self, data: bytes) -> None:
        try:
            self._http.receive_data(data)
            while self._take(self._http.next_event()):
                pass
        except (h11.ProtocolError, RuntimeError):  # RuntimeError: data after the end
            self._break()
            self.abort()

    def _take(self, event: Any) -> bool:
        """One event; whether there may be another."""
        if isinstance(event, h11.Response):
            if self._head is not None and not self._head.done():
                self._head.set_result(event)
                self.resume_writing()  # whoever pours need not: the other side has answered, and may read no more
        elif isinstance(event, h11.Data) and self._arrivals is not None:
            self._arrivals.put(bytes(event.data))
        elif isinstance(event, h11.Data):
            self.kept += event.data[: MAX_KEPT - len(self.kept)]
            self._seen += len(event.data)
            if self._seen >= MAX_READ:
                self._over()
                return False
        elif not isinstance(event, h11.InformationalResponse):
            if isinstance(event, h11.EndOfMessage):
                self._over(is_whole=True)
            return False
        return True

    def _over(self, *, is_whole: bool = False) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
        if self._arrivals is not None:
            self._arrivals.end(is_whole=is_whole)

    def _break(self) -> None:
        """No answer will come; one whose body breaks off is an answer all the same."""
        if self._head is not None and not self._head.done():
            self._head.set_exception(Broken(untouched=self._untouched))
            self._head.exception()  # whoever waited may be gone
        self._over()


def _headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return tuple((bytes(name), bytes(value)) for name, value in headers)
