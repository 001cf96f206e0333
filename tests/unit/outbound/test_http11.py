"""The HTTP/1.1 connection alone, on a transport that the test drives byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queue_middleware.outbound.http11 import MAX_BODY_PREFIX, MAX_READ, Connection, ConnectionClosed, StreamBody
from queue_middleware.outbound.http_head import Request

pytestmark = pytest.mark.usefixtures("course")

REQUEST = Request(b"POST", b"/hook", ((b"host", b"example.com"), (b"content-length", b"4")))
SENT = b"POST /hook HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\n\r\nbody"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class ManualTransport(asyncio.Transport):
    """Records what is written; the test calls the protocol's callbacks itself."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.written = b""
        self.is_reading = True
        self.aborts = 0

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return bool(self.aborts)

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def abort(self) -> None:
        self.aborts += 1
        if self.aborts == 1:
            self.connection.connection_lost(None)


def connect() -> tuple[Connection, ManualTransport]:
    connection = Connection()
    transport = ManualTransport(connection)
    connection.connection_made(transport)
    return connection, transport


async def begin(connection: Connection, body: bytes | StreamBody = b"body") -> asyncio.Task[Any]:
    """Start an exchange, up to the point at which it waits for the peer."""
    sending = asyncio.create_task(connection.send(REQUEST, body))
    await asyncio.sleep(0)
    return sending


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Hypothesis calls synchronous functions, so each example has an event loop of its own."""

    async def main() -> None:
        await test()

    asyncio.run(main())


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    """The pieces of `data`, cut at these places."""
    bounds = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return (data[start:end] for start, end in pairwise(bounds) if start < end)


@dataclass(frozen=True)
class Framed:
    """A response in one of the framings of RFC 9112 section 6."""

    wire: bytes
    status: int
    body: bytes
    ends_with_connection: bool = False


def by_length(status: int, body: bytes) -> Framed:
    return Framed(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body), status, body)


def by_chunks(status: int, pieces: list[bytes]) -> Framed:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece)
    return Framed(
        b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n%s0\r\n\r\n" % (status, chunks), status, b"".join(pieces)
    )


def by_close(status: int, body: bytes) -> Framed:
    return Framed(b"HTTP/1.1 %d X\r\nConnection: close\r\n\r\n%s" % (status, body), status, body, ends_with_connection=True)


def informed(response: Framed) -> Framed:
    return Framed(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + response.wire, response.status, response.body)


STATUSES = st.sampled_from([200, 201, 302, 404, 500, 503])
BODIES = st.binary(max_size=3000)
WITH_LENGTH = st.builds(by_length, STATUSES, BODIES)
CHUNKED = st.builds(by_chunks, STATUSES, st.lists(st.binary(max_size=600), max_size=6))
RESPONSES = st.one_of(WITH_LENGTH, CHUNKED, st.builds(by_close, STATUSES, BODIES), st.builds(informed, WITH_LENGTH))
PLACES = st.lists(st.integers(0, 10_000), max_size=12)


# --- how a response is cut into pieces


@given(RESPONSES, PLACES)
@example(by_length(200, b"hello"), list(range(200)))
@example(by_chunks(200, [b"hel", b"lo"]), list(range(200)))
def test_a_response_is_the_same_however_it_is_cut(response: Framed, places: list[int]) -> None:
    async def exchange() -> None:
        connection, transport = connect()
        sending = await begin(connection)
        assert transport.written.lower() == SENT.lower()
        for piece in cut(response.wire, places):
            connection.data_received(piece)
        if response.ends_with_connection:
            connection.eof_received()
        status, _ = await sending
        await connection.wait_complete()
        assert (status, bytes(connection.body_prefix)) == (response.status, response.body[:MAX_BODY_PREFIX])
        assert connection.reset() is not response.ends_with_connection

    run(exchange)


@given(RESPONSES, PLACES)
def test_a_streamed_body_is_whole_however_it_is_cut(response: Framed, places: list[int]) -> None:
    async def exchange() -> None:
        connection, _ = connect()
        body = connection.stream_response()
        sending = await begin(connection)
        for piece in cut(response.wire, places):
            connection.data_received(piece)
        if response.ends_with_connection:
            connection.eof_received()
        status, _ = await sending
        received = b"".join([chunk async for chunk in body.chunks()])
        assert (status, received, body.is_complete) == (response.status, response.body, True)

    run(exchange)


@given(st.one_of(WITH_LENGTH, CHUNKED), PLACES, st.integers(0, 10_000))
def test_a_response_that_ends_early_is_never_taken_for_a_whole_one(response: Framed, places: list[int], end: int) -> None:
    """The head is a response as soon as it is complete; a body that ends early raises, and the connection is not used again."""
    head = response.wire.index(b"\r\n\r\n") + 4
    end %= len(response.wire)

    async def exchange() -> None:
        connection, _ = connect()
        body = connection.stream_response()
        sending = await begin(connection)
        for piece in cut(response.wire[:end], places):
            connection.data_received(piece)
        connection.connection_lost(None)
        if end < head:
            with pytest.raises(ConnectionClosed) as caught:
                await sending
            assert caught.value.untouched is (end == 0)
        else:
            assert (await sending)[0] == response.status
            with pytest.raises(ConnectionClosed):
                [chunk async for chunk in body.chunks()]
        assert not body.is_complete
        assert not connection.reset()

    run(exchange)


@given(st.binary(max_size=400), PLACES)
@example(b"\x00", [])
@example(b"HTTP/1.1 200 OK\r\n\r\n", [])
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" * 2, [])
@example(b"HTTP/2 200 OK\r\n\r\n", [3])
def test_arbitrary_bytes_end_the_exchange_and_raise_nothing_else(received: bytes, places: list[int]) -> None:
    async def exchange() -> None:
        connection, _ = connect()
        sending = await begin(connection)
        for piece in cut(received, places):
            connection.data_received(piece)
        connection.connection_lost(None)
        await asyncio.gather(sending, return_exceptions=True)
        error = sending.exception()
        assert error is None or isinstance(error, ConnectionClosed)
        assert connection.is_complete
        assert not connection.reset()

    run(exchange)


# --- broken framing


BROKEN = [
    b"+OK redis\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
]


@pytest.mark.parametrize("received", BROKEN, ids=range(len(BROKEN)))
async def test_a_head_that_is_not_http_breaks_the_connection(received: bytes) -> None:
    connection, transport = connect()
    sending = await begin(connection)
    connection.data_received(received)
    with pytest.raises(ConnectionClosed) as caught:
        await sending
    assert not caught.value.untouched
    assert transport.aborts
    assert not connection.is_open


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-1\r\n", b"5\r\nhello!!\r\n"])
async def test_a_bad_chunk_ends_the_body_early(chunk: bytes) -> None:
    connection, transport = connect()
    body = connection.stream_response()
    sending = await begin(connection)
    connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + chunk)
    assert (await sending)[0] == 200
    with pytest.raises(ConnectionClosed):
        [piece async for piece in body.chunks()]
    assert transport.aborts


async def test_bytes_after_a_response_forbid_another_exchange() -> None:
    connection, _ = connect()
    sending = await begin(connection)
    connection.data_received(GOOD + b"HTTP/1.1 200 OK\r\n")
    await sending
    assert not connection.reset()


async def test_bytes_between_two_exchanges_close_the_connection() -> None:
    connection, transport = connect()
    sending = await begin(connection)
    connection.data_received(GOOD)
    await sending
    assert connection.reset()
    connection.data_received(b"H")
    assert transport.aborts
    assert not connection.is_open


async def test_a_response_before_the_request_closes_the_connection() -> None:
    connection, transport = connect()
    connection.data_received(GOOD)
    assert transport.aborts
    with pytest.raises(ConnectionClosed) as caught:
        await connection.send(REQUEST, b"body")
    assert caught.value.untouched


# --- early responses


def counted(total: int, taken: list[int], on_chunk: Callable[[int], None]) -> StreamBody:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(total):
            taken.append(number)
            on_chunk(number)
            yield b"x"
            await asyncio.sleep(0)

    return StreamBody(total, chunks)


@given(st.integers(0, 3))
def test_a_response_that_arrives_while_the_body_is_sent_ends_the_sending(at: int) -> None:
    async def exchange() -> None:
        connection, _ = connect()
        taken: list[int] = []

        def respond(number: int) -> None:
            if number == at:
                connection.data_received(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

        status, _ = await connection.send(REQUEST, counted(4, taken, respond))
        await connection.wait_complete()
        assert (status, taken) == (413, list(range(at + 1)))
        assert not connection.reset(), "half a request was sent"

    run(exchange)


async def test_a_response_wakes_a_sender_whose_peer_reads_no_further() -> None:
    connection, _ = connect()
    sending = await begin(connection, counted(4, taken := [], lambda number: connection.pause_writing()))
    assert taken == [0]
    connection.data_received(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    assert (await sending)[0] == 503
    assert len(taken) < 4


async def test_a_connection_that_is_lost_wakes_a_sender_whose_peer_reads_no_further() -> None:
    connection, _ = connect()
    sending = await begin(connection, counted(4, [], lambda number: connection.pause_writing()))
    connection.connection_lost(None)
    with pytest.raises(ConnectionClosed) as caught:
        await sending
    assert caught.value.untouched


async def test_a_stream_is_sent_as_it_is_produced() -> None:
    connection, transport = connect()
    sending = await begin(connection, counted(4, [], lambda number: None))
    for _ in range(5):
        await asyncio.sleep(0)
    assert transport.written.endswith(b"\r\n\r\nxxxx")
    connection.data_received(GOOD)
    assert (await sending)[0] == 200
    await connection.wait_complete()
    assert connection.reset()


# --- bounds


async def test_no_more_than_the_limit_of_a_long_body_is_read() -> None:
    connection, _ = connect()
    sending = await begin(connection)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"a" * (MAX_READ - 1))
    await sending
    assert not connection.is_complete
    connection.data_received(b"a")
    assert connection.is_complete
    assert bytes(connection.body_prefix) == b"a" * MAX_BODY_PREFIX
    assert not connection.reset()


async def test_reading_pauses_while_a_streamed_body_is_not_consumed() -> None:
    connection, transport = connect()
    body = connection.stream_response()
    sending = await begin(connection)
    size = 2 * MAX_READ
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"a" * MAX_READ)
    await sending
    assert not transport.is_reading
    chunks = body.chunks()
    received = len(await anext(chunks))
    consuming = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    assert transport.is_reading
    connection.data_received(b"a" * (size - received))
    assert received + len(await consuming) == size
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)
    assert connection.reset()
    assert transport.is_reading


async def test_exchanges_follow_each_other_on_one_connection() -> None:
    connection, transport = connect()
    for number in range(1, 4):
        sending = await begin(connection)
        connection.data_received(GOOD)
        assert (await sending)[0] == 200
        await connection.wait_complete()
        assert (connection.exchanges, bytes(connection.body_prefix)) == (number, b"hello")
        assert connection.reset()
    assert transport.written.lower() == SENT.lower() * 3
