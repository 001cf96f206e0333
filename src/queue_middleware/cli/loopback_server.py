"""A small HTTP/1.1 server for `listen`: one request on each connection, whole bodies, an end that waits for responses."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

import h11

from queue_middleware.receivers import LARGEST_BODY

_READ_TIMEOUT = 30.0
"""Seconds for which a client may take to send a request."""
_GRACE = 5.0
"""Seconds that responses get after the signal to end; a second signal ends them at once."""
_CLOSE = (b"connection", b"close")


class Received(NamedTuple):
    """One request."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Reply(NamedTuple):
    """One response."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


Handler = Callable[[Received], Awaitable[Reply]]


class LoopbackServer:
    """Serves `handler` until SIGINT or SIGTERM, or until `stop`."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._stopping = asyncio.Event()
        self._connections: dict[asyncio.Task[None], bool] = {}
        """Whether each connection has sent its request; the others need not be waited for."""
        self._signals = 0
        self._error: Exception | None = None
        """That of `handler`, which ends the server."""

    def stop(self) -> None:
        """Accept no more connections; `run` returns when the responses are sent. The second call ends them at once."""
        self._signals += 1
        self._stopping.set()
        for task, has_request in self._connections.items():
            if self._signals > 1 or not has_request:
                task.cancel()

    async def run(self, host: str, port: int, ready: Callable[[int], None]) -> None:
        """Listen and serve. `ready` is called with the port, which the system chooses for port 0.

        Raises `OSError`, and any error of `handler`.
        """
        server = await asyncio.start_server(self._accept, host, port, limit=2**18)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        try:
            ready(server.sockets[0].getsockname()[1])
            await self._stopping.wait()
        finally:
            server.close()
            await self._drain()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        if self._error is not None:
            raise self._error

    async def _drain(self) -> None:
        if self._connections:
            _, late = await asyncio.wait(self._connections, timeout=_GRACE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _respond(self, received: Received) -> Reply:
        try:
            reply = await self._handler(received)
        except Exception as error:  # of the command, e.g. because its standard output is closed; the sender is not at fault
            self._error = self._error or error
            self.stop()
            return Reply(500)
        return Reply(reply.status) if received.method == "HEAD" else reply

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections[task] = False
        task.add_done_callback(self._connections.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
        try:
            try:
                async with asyncio.timeout(_READ_TIMEOUT):
                    received = await _read(connection, reader)
                    self._connections[asyncio.current_task()] = True  # type: ignore[index]  # a task runs this
                reply = Reply(413, b"too large") if received is None else await self._respond(received)
            except h11.RemoteProtocolError as error:
                reply = Reply(error.error_status_hint, b"not a valid request")
            writer.write(_serialize(connection, reply))
            await writer.drain()
        except (OSError, TimeoutError, EOFError):
            pass  # the client has gone, or sends nothing
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _read(connection: h11.Connection, reader: asyncio.StreamReader) -> Received | None:
    """The next request; None if its body is too large. Raises `EOFError` if the client closed the connection."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(2**16)
            if not data and head is None:
                raise EOFError
            connection.receive_data(data)
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > LARGEST_BODY:
                return None
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers)
            return Received(head.method.decode("ascii"), head.target.decode("latin-1"), headers, bytes(body))
        else:
            raise EOFError


def _serialize(connection: h11.Connection, reply: Reply) -> bytes:
    """The whole response. A request that is not valid needs a new state machine, because that one has failed."""
    if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        connection = h11.Connection(h11.SERVER)
    headers = [_CLOSE, (b"content-length", b"%d" % len(reply.body)), (b"content-type", reply.content_type.encode())]
    pieces = [connection.send(h11.Response(status_code=reply.status, headers=headers))]
    if reply.body:
        pieces.append(connection.send(h11.Data(data=reply.body)))
    pieces.append(connection.send(h11.EndOfMessage()))
    return b"".join(piece for piece in pieces if piece)
