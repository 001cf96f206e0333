"""Group reads: reads are executed together, and one by one if a read fails."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from queue_middleware.errors import QueueError, StoreBusy, StoreError, UnknownRequest
from queue_middleware.stores.common import reader as module
from queue_middleware.stores.common.reader import Reader
from queue_middleware.stores.common.transaction import Queries


class Connection:
    """A connection whose thread works only when the test calls `work`."""

    def __init__(self) -> None:
        self.posted: list[Callable[[Any], None]] = []

    def post(self, work: Callable[[Any], None]) -> None:
        self.posted.append(work)

    def failure_of(self, error: BaseException) -> QueueError:
        return error if isinstance(error, QueueError) else StoreError("the driver failed")

    async def work(self) -> None:
        """Execute one group and return its results."""
        self.posted.pop(0)(None)
        await asyncio.sleep(0)


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.groups: list[list[Any]] = []
        self.connection = Connection()
        self.reader = Reader(self.connection, lambda connection: connection, lambda: self.now)

    def double(self, _: Queries | None, batch: Sequence[int]) -> list[int | QueueError]:
        self.groups.append(list(batch))
        if None in batch:
            raise ValueError("what is two times nothing?")
        return [UnknownRequest("too large") if number > 1000 else 2 * number for number in batch]

    def slow(self, _: Queries | None, batch: Sequence[int]) -> list[int | QueueError]:
        self.now += 1
        return self.double(_, batch)

    def read(self, *numbers: Any) -> list[asyncio.Future[int]]:
        return [self.reader.submit(self.double, number) for number in numbers]


async def test_pending_reads_of_one_operation_are_one_batch() -> None:
    bench = Bench()
    reads = bench.read(1, 2, 3)
    other = bench.reader.read(lambda _: "other")
    reads += bench.read(4)
    assert len(bench.connection.posted) == 1
    await bench.connection.work()
    assert [await read for read in reads] == [2, 4, 6, 8]
    assert await other == "other"
    assert bench.groups == [[1, 2, 3, 4]]


async def test_reads_during_a_group_are_the_next_group() -> None:
    bench = Bench()
    (first,) = bench.read(1)
    work = bench.connection.posted.pop()
    work(None)
    (second,) = bench.read(2)
    assert not bench.connection.posted
    assert await first == 2
    await bench.connection.work()
    assert await second == 4
    assert bench.groups == [[1], [2]]


async def test_a_failing_read_does_not_affect_others() -> None:
    bench = Bench()
    good, unknown, broken = bench.read(1, 2000, None)
    await bench.connection.work()
    assert await good == 2
    with pytest.raises(UnknownRequest):
        await unknown
    with pytest.raises(StoreError):
        await broken
    assert bench.groups == [[1, 2000, None], [1], [2000], [None]]


async def test_an_error_does_not_stay_in_memory() -> None:
    class Causal(Connection):
        def failure_of(self, error: BaseException) -> QueueError:
            failure = StoreError("the driver failed")
            failure.__cause__ = error
            return failure

    async def failed() -> weakref.ref[BaseException]:
        reader = Reader(connection, lambda connection: connection)
        read = reader.submit(Bench().double, cast("int", None))
        await connection.work()
        with pytest.raises(StoreError) as caught:
            await read
        return weakref.ref(caught.value)

    connection = Causal()
    error = await failed()
    gc.collect()
    assert error() is None


async def test_a_cancelled_caller_does_not_affect_others() -> None:
    bench = Bench()
    gone, unknown, stays = bench.read(1, 2000, 3)
    gone.cancel()
    await bench.connection.work()
    assert await stays == 6
    assert isinstance(unknown.exception(), UnknownRequest)


async def test_a_group_is_limited_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_OPERATIONS", 2)
    bench = Bench()
    reads = bench.read(1, 2, 3)
    await bench.connection.work()
    assert [read.done() for read in reads] == [True, True, False]
    await bench.connection.work()
    assert bench.groups == [[1, 2], [3]]


async def test_results_do_not_wait_for_slow_reads() -> None:
    bench = Bench()
    slow = bench.reader.submit(bench.slow, 1)
    rest = bench.read(2, 3)
    await bench.connection.work()
    assert slow.done()
    assert not any(read.done() for read in rest)
    last = bench.reader.submit(bench.slow, 4)
    await bench.connection.work()
    assert [await read for read in (*rest, last)] == [4, 6, 8]
    assert bench.groups == [[1], [2, 3], [4]]


async def test_closing_waits_for_pending_reads() -> None:
    bench = Bench()
    (first,) = bench.read(1)
    closing = asyncio.ensure_future(bench.reader.close())
    await asyncio.sleep(0)
    (late,) = bench.read(2)
    with pytest.raises(StoreBusy, match="closed"):
        await late
    assert not closing.done()
    await bench.connection.work()
    await closing
    assert await first == 2
    await bench.reader.close()


async def test_a_group_that_cannot_begin_fails_as_a_whole() -> None:
    bench = Bench()
    bench.reader = Reader(bench.connection, lambda connection: connection.none)
    reads = bench.read(1, 2)
    await bench.connection.work()
    assert [type(read.exception()) for read in reads] == [StoreError] * 2
