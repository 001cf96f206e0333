"""Bodies that stall, and bodies that exceed the memory limit: which are ended, and that others are not affected."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from queue_middleware.errors import BodyTooSlow, QueueError, TooLarge, Unavailable
from queue_middleware.web.request import MAX_CALLBACK_BYTES, MIN_RATE, BodyReader, ClientDisconnected, QueueRequest
from tests.support.raw_asgi import Message, http_scope, respond

MOST = 1000
WINDOW = int(20 * MIN_RATE)


class Body:
    """A body whose pieces arrive when the test sends them."""

    def __init__(self, reader: BodyReader, address: str = "192.0.2.7", identity: str | None = None) -> None:
        self.pieces: asyncio.Queue[Message] = asyncio.Queue()
        self.call = QueueRequest[Any]({**http_scope("POST", b"/x"), "client": (address, 1)}, self.pieces.get, respond)  # type: ignore[arg-type]
        self.call.identity = identity
        self.reading = asyncio.ensure_future(self._read(reader))

    async def _read(self, reader: BodyReader) -> bytes | QueueError:
        try:
            return await reader.read(self.call, ())
        except QueueError as error:
            return error
        finally:
            reader.done(self.call)

    async def send(self, size: int, *, more: bool = True) -> None:
        self.pieces.put_nowait({"type": "http.request", "body": b"x" * size, "more_body": more})
        await settled()

    @property
    def ended(self) -> Any:
        return self.reading.result() if self.reading.done() else None


async def settled() -> None:
    """Let all tasks run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def bodies(reader: BodyReader) -> AsyncIterator[Callable[..., Awaitable[Body]]]:
    """Creates bodies that are being read, and cancels those that are left."""
    made: list[Body] = []

    async def make(size: int = 0, address: str = "192.0.2.7", identity: str | None = None) -> Body:
        made.append(Body(reader, address, identity))
        await settled()
        if size:
            await made[-1].send(size)
        return made[-1]

    yield make
    for body in made:
        body.reading.cancel()
    await asyncio.gather(*(body.reading for body in made), return_exceptions=True)
    assert reader._held == 0
    assert not reader._reading


async def look(reader: BodyReader, times: int) -> None:
    for _ in range(times):
        reader._check(asyncio.get_running_loop())
    await settled()


async def test_a_body_that_stops_is_refused_at_its_time_limit() -> None:
    reader = BodyReader(10**6, 10**9, 20.0)
    async with bodies(reader) as make:
        silent, begun = await make(), await make(10**5)
        await look(reader, 1)
        await look(reader, 19)
        assert silent.ended is begun.ended is None
        await look(reader, 1)
        assert isinstance(silent.ended, BodyTooSlow)
        assert begun.ended is None
        await look(reader, 1)
        assert isinstance(begun.ended, BodyTooSlow)
        assert begun.ended.status == 408
        assert not begun.reading.cancelled()
        assert begun.call.body_unread is False


async def test_a_body_that_continues_has_no_total_time_limit() -> None:
    reader = BodyReader(10**9, 10**9, 20.0)
    async with bodies(reader) as make:
        slow, too_slow = await make(), await make()
        for _ in range(10):
            await slow.send(WINDOW)
            await too_slow.send(WINDOW // 20)
            await look(reader, 15)
        assert slow.ended is None
        assert isinstance(too_slow.ended, BodyTooSlow)
        await slow.send(1, more=False)
        assert len(slow.ended) == 10 * WINDOW + 1


async def test_a_fast_beginning_does_not_extend_the_time() -> None:
    reader = BodyReader(10**9, 10**9, 20.0)
    async with bodies(reader) as make:
        body = await make(100 * WINDOW)
        await look(reader, 22)
        assert isinstance(body.ended, BodyTooSlow)


async def test_the_last_piece_may_be_short() -> None:
    reader = BodyReader(10**9, 10**9, 20.0)
    async with bodies(reader) as make:
        body = await make(WINDOW)
        await look(reader, 20)
        await body.send(3, more=False)
        assert len(body.ended) == WINDOW + 3


async def test_a_blocked_event_loop_is_not_counted_against_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks are counted: a delayed check counts once."""
    reader, loop = BodyReader(10**6, 10**9, 20.0), asyncio.get_running_loop()
    async with bodies(reader) as make:
        body = await make()
        monkeypatch.setattr(loop, "time", lambda: 10.0**9)
        await look(reader, 5)
        assert body.ended is None


async def test_a_cancellation_by_another_task_is_a_cancellation() -> None:
    reader = BodyReader(10**6, 10**9, 20.0)
    async with bodies(reader) as make:
        body, late = await make(), await make()
        body.reading.cancel()
        await settled()
        assert body.reading.cancelled()
        for _ in range(21):
            reader._check(asyncio.get_running_loop())
        late.reading.cancel()  # at the same moment
        await settled()
        assert late.reading.cancelled()


async def test_a_disconnect_and_a_body_that_is_too_large() -> None:
    reader = BodyReader(MOST, 10**9, 20.0)
    async with bodies(reader) as make:
        gone, large = await make(10), await make()
        gone.pieces.put_nowait({"type": "http.disconnect"})
        await large.send(MOST + 1)
        assert isinstance(large.ended, TooLarge)
        await settled()
        assert isinstance(gone.reading.exception(), ClientDisconnected)


async def test_without_bodies_there_are_no_checks() -> None:
    reader = BodyReader(MOST, 10**9, 0.1)
    body = Body(reader)
    await settled()
    await body.send(5, more=False)
    assert body.ended == b"xxxxx"
    with_timer = reader._loop
    assert with_timer is asyncio.get_running_loop()
    await look(reader, 1)
    assert reader._loop is None


def test_another_event_loop_has_its_own_checks() -> None:
    """The queue may start again in another event loop after the first was closed with a pending check."""
    reader = BodyReader(10**6, 10**9, 0.1)

    async def stall() -> Any:
        body = Body(reader)
        return await asyncio.wait_for(body.reading, 20)

    async def finish() -> Any:
        body = Body(reader)
        await body.send(1, more=False)
        return await body.reading

    assert asyncio.run(finish()) == b"x"
    assert reader._loop is not None
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(asyncio.run(stall())))
    thread.start()
    thread.join()
    assert isinstance(result[0], BodyTooSlow)


# --- memory


async def test_one_client_does_not_block_others() -> None:
    reader = BodyReader(MOST, 10 * MOST, 20.0)
    async with bodies(reader) as make:
        greedy = [await make(MOST, "192.0.2.7") for _ in range(10)]
        other = await make(MOST // 2, "192.0.2.8")
        assert [type(body.ended) for body in greedy].count(Unavailable) == 1
        await other.send(MOST // 2, more=False)
        assert len(other.ended) == MOST
        assert [type(body.ended) for body in greedy].count(Unavailable) == 1


async def test_clients_are_distinguished_by_identity() -> None:
    reader = BodyReader(MOST, 10 * MOST, 20.0)
    async with bodies(reader) as make:
        greedy = [await make(MOST, identity="alice") for _ in range(10)]
        other = await make(1, identity="bob")
        await other.send(1, more=False)
        assert other.ended == b"xx"
        assert sum(body.ended is not None for body in greedy) == 1


async def test_a_single_client_can_use_the_whole_limit_and_no_more() -> None:
    reader = BodyReader(MOST, 10 * MOST, 20.0)
    async with bodies(reader) as make:
        all_of_it = [await make(MOST) for _ in range(10)]
        one_more = await make(1)
        assert isinstance(one_more.ended, Unavailable)
        assert one_more.ended.headers
        assert all(body.ended is None for body in all_of_it)


async def test_a_client_with_the_largest_share_gives_way() -> None:
    reader = BodyReader(MOST, 10 * MOST, 20.0)
    async with bodies(reader) as make:
        others = [await make(MOST, f"192.0.2.{number}") for number in range(10)]
        small = await make(MOST // 2, "198.51.100.1")
        assert sum(body.ended is not None for body in others) == 1
        await small.send(MOST // 2)
        another = await make(MOST, "198.51.100.2")
        assert isinstance(another.ended, Unavailable)


async def test_stalled_bodies_give_way_first_even_to_the_same_client() -> None:
    reader = BodyReader(MOST, 10 * MOST, 20.0)
    async with bodies(reader) as make:
        stalled = [await make(MOST) for _ in range(10)]
        await look(reader, 5)
        more = await make(5)
        assert [type(body.ended) for body in stalled].count(BodyTooSlow) == 1
        await more.send(1, more=False)
        assert len(more.ended) == 6


async def test_bodies_being_stored_use_memory_and_are_not_ended() -> None:
    reader = BodyReader(MOST, 2 * MOST, 20.0)
    async with bodies(reader) as make:
        stored = QueueRequest[Any]({**http_scope("POST", b"/x")}, lambda: _whole(2 * MOST - 1), respond)  # type: ignore[arg-type]
        reader._max_size = 2 * MOST
        assert len(await reader.read(stored, ())) == 2 * MOST - 1
        refused = await make(2, "192.0.2.9")
        assert isinstance(refused.ended, Unavailable)
        reader.done(stored)
        reader.done(stored)


async def _whole(size: int) -> Message:
    return {"type": "http.request", "body": b"x" * size, "more_body": False}


def test_one_body_always_fits() -> None:
    assert BodyReader(10**9, MAX_CALLBACK_BYTES, 20.0)._budget == 2 * 10**9


async def test_many_small_pieces_use_no_more_memory_than_their_bytes() -> None:
    """As a separate object, a piece of two bytes takes twenty times as much; some servers pass on each chunk as received."""
    reader, count = BodyReader(10**6, 10**9, 20.0), 40_000
    pieces = [b"ab"] * count + [b"c" * 5000, b""] + [b"de"] * count
    left = iter(pieces)
    held: list[int] = []

    async def receive() -> Message:
        piece = next(left, None)
        if piece is None:
            held.append(tracemalloc.get_traced_memory()[1])
        return {"type": "http.request", "body": bytes(bytearray(piece or b"")), "more_body": piece is not None}

    call = QueueRequest[Any](http_scope("POST", b"/x"), receive, respond)
    tracemalloc.start()
    try:
        body = await reader.read(call, ())
    finally:
        tracemalloc.stop()
    reader.done(call)
    assert body == b"".join(pieces)
    assert held[0] < 3 * len(body)


async def test_empty_pieces_use_no_memory() -> None:
    reader, left = BodyReader(10**6, 10**9, 20.0), iter(range(50_000))

    async def receive() -> Message:
        more = next(left, None) is not None
        return {"type": "http.request", "body": b"", "more_body": more}

    call = QueueRequest[Any](http_scope("POST", b"/x"), receive, respond)
    tracemalloc.start()
    try:
        assert await reader.read(call, ()) == b""
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


async def test_a_body_without_memory_does_not_give_way() -> None:
    async with bodies(BodyReader(MOST, 0, 20.0)) as make:
        waiting = await make(address="192.0.2.1")
        waiting.call.stalled = 10
        large = await make(2 * MOST // 2, address="192.0.2.2")
        other = await make(MOST, address="192.0.2.2")
        late = await make(10, address="192.0.2.3")
        assert waiting.ended is None
        assert late.ended is None
        assert isinstance(large.ended or other.ended, Unavailable)


@pytest.mark.parametrize("body", [b"abc", bytearray(b"abc"), None])
async def test_a_body_of_one_message(body: bytes | bytearray | None) -> None:
    async def receive() -> Message:
        return {"type": "http.request"} if body is None else {"type": "http.request", "body": body}

    reader = BodyReader(MOST, 10**9, 20.0)
    call = QueueRequest[Any](http_scope("POST", b"/x"), receive, respond)
    call.body_unread = True
    result = await reader.read(call, (b"3",))
    assert (result, type(result)) == (bytes(body or b""), bytes)
    assert (call.body_unread, reader._held) == (False, len(result))


@pytest.mark.parametrize("lengths", [(b"1001",), (b"5", b"1001"), (b"0" * 16,)])
async def test_a_declared_length_above_the_limit_is_refused_unread(lengths: tuple[bytes, ...]) -> None:
    call = QueueRequest[Any](http_scope("POST", b"/x"), respond, respond)
    with pytest.raises(TooLarge, match="bytes or more; the maximum is 1000"):
        await BodyReader(MOST, 10**9, 20.0).read(call, lengths)


def test_event_loops_of_two_threads_do_not_share_a_task() -> None:
    """The queue may start again in another thread while the check of the first loop is still due."""
    reader = BodyReader(10**6, 10**9, 20.0)

    async def read() -> None:
        call = QueueRequest[Any](http_scope("POST", b"/x"), lambda: _whole(1), respond)
        reading: list[Any] = []
        call.receive = lambda: _observed(reader, call, reading)
        await reader.read(call, ())
        assert reading == [asyncio.current_task()]

    async def read_in_two_threads() -> None:
        await read()
        await asyncio.to_thread(asyncio.run, read())

    asyncio.run(read_in_two_threads())


async def _observed(reader: BodyReader, call: QueueRequest[Any], reading: list[Any]) -> Message:
    reading.append(reader._reading[call])
    return await _whole(1)
