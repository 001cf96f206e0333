from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Sequence

import pytest

from queue_middleware.errors import QueueError, StoreBusy, StoreError
from queue_middleware.events import Event, ServiceError
from queue_middleware.jobs.log_lines import LogLevel, LogLine, make_line
from queue_middleware.jobs.models import Claim, Progress, RetryPolicy
from queue_middleware.worker import log_buffer
from queue_middleware.worker.log_buffer import LogBuffer, LogBufferContext
from tests.support.factories import make_request
from tests.support.queue_client import eventually


class Record:
    """A store that keeps what it is told and answers when it is let."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[str, ...], Progress | None]] = []
        self.failures: list[QueueError] = []
        self.held = True
        self.open = asyncio.Event()
        self.open.set()

    def log(self, claim: Claim, lines: Sequence[LogLine], progress: Progress | None = None) -> Awaitable[bool]:
        self.calls.append(("log", tuple(line.message for line in lines), progress))
        return self._answer(self.failures.pop(0) if self.failures else None)

    async def _answer(self, failure: QueueError | None) -> bool:
        await self.open.wait()
        if failure is not None:
            raise failure
        return self.held

    async def end(self, what: str) -> bool:
        self.calls.append((what, (), None))
        return True

    @property
    def told(self) -> list[str]:
        return [message for _, lines, _ in self.calls for message in lines]


class Desk:
    """A logbook with its store, and what it announces."""

    def __init__(self, *, size: int = 1000, attempt: int = 1) -> None:
        self.store = Record()
        self.announced: list[Event] = []
        self.claim = Claim(1, "id", 7, attempt, RetryPolicy(3), make_request(), None)
        context = LogBufferContext(self.store, self.announced.append, asyncio.get_running_loop(), size)  # type: ignore[arg-type]
        self.book = LogBuffer(self.claim, context)

    def write(self, *messages: str) -> None:
        for message in messages:
            self.book.write(make_line(0, LogLevel.INFO, message, {}))

    async def end(self, *, wait: bool = False) -> bool:
        return await self.book.before(self.store.end, wait=wait)("end")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_buffer, "FLUSH_INTERVAL", 0.0)
    monkeypatch.setattr(log_buffer, "_PAUSE", 0.0)


async def test_lines_are_gathered_and_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.write("one", "two", "three")
    assert desk.store.calls == []
    await eventually(lambda: desk.store.calls)
    desk.write("four")
    await eventually(lambda: len(desk.store.calls) == 2)
    assert desk.store.calls == [("log", ("one", "two", "three"), None), ("log", ("four",), None)]


async def test_one_write_at_a_time() -> None:
    desk = Desk()
    desk.store.open.clear()
    desk.write("one")
    await eventually(lambda: desk.store.calls)
    desk.write("two")
    for _ in range(20):
        await asyncio.sleep(0)
    desk.write("three")
    assert desk.store.told == ["one"]
    desk.store.open.set()
    await eventually(lambda: len(desk.store.calls) == 2)
    assert desk.store.told == ["one", "two", "three"]


async def test_lines_from_threads_are_all_there() -> None:
    desk = Desk(size=10**6)
    threads = [threading.Thread(target=desk.write, args=[f"{n} {m}" for m in range(100)]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await desk.end()
    for n in range(8):
        mine = [message for message in desk.store.told if message.startswith(f"{n} ")]
        assert mine == [f"{n} {m}" for m in range(100)]


# --- progress


async def test_the_last_report_is_written_and_becomes_a_line_in_its_place() -> None:
    desk = Desk()
    for step in range(1000):
        desk.book.report(Progress(step / 1000, "early"))
    desk.write("before")
    desk.book.report(Progress(0.5, "half"))
    desk.write("after")
    await eventually(lambda: desk.store.calls)
    assert desk.store.calls == [("log", ("before", "50% half", "after"), Progress(0.5, "half"))]


async def test_a_report_that_says_nothing_new_is_no_line() -> None:
    desk = Desk()
    for fraction in (0.5, 0.501, 0.51):
        desk.book.report(Progress(fraction, "half"))
        calls = len(desk.store.calls)
        await eventually(lambda calls=calls: len(desk.store.calls) > calls)
    assert [(lines, progress.fraction) for _, lines, progress in desk.store.calls if progress] == [
        (("50% half",), 0.5),
        ((), 0.501),
        (("51% half",), 0.51),
    ]


async def test_the_last_report_is_among_the_last_lines() -> None:
    desk = Desk()
    desk.book.report(Progress(1.0, "done"))
    await desk.end()
    assert desk.store.told == ["100% done"]


# --- bounds


async def test_too_many_bytes_are_dropped_and_counted() -> None:
    desk = Desk(size=10)
    desk.write("12345", "123456", "1", "2")
    await desk.end()
    assert desk.store.told == ["12345", "3 more lines were dropped: one attempt keeps at most 10000 lines and 10 bytes"]


async def test_too_many_lines_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_buffer, "MAX_LINES", 3)
    desk = Desk()
    desk.write("one", "two", "three", "four")
    await eventually(lambda: desk.store.calls)
    desk.write("five")
    desk.book.report(Progress(0.5))
    await desk.end()
    assert desk.store.told[:3] == ["one", "two", "three"]
    assert desk.store.told[3:] == ["2 more lines were dropped: one attempt keeps at most 3 lines and 1000 bytes"]


async def test_room_for_nothing_keeps_nothing_but_progress() -> None:
    desk = Desk(size=0)
    desk.write("one")
    desk.book.report(Progress(0.5))
    await eventually(lambda: desk.store.calls)
    await desk.end()
    assert desk.store.calls == [("log", (), Progress(0.5)), ("end", (), None)]


async def test_an_outage_fills_memory_no_further_than_the_bounds() -> None:
    desk = Desk(size=100)
    desk.store.failures = [StoreBusy("away", 1)] * 5
    for _ in range(5):
        desk.write(*["x" * 10] * 1000)
        failures = len(desk.store.failures)
        await eventually(lambda failures=failures: len(desk.store.failures) < failures or not failures)
    assert sum(len(line.message) for line in desk.book._lines) <= 100
    await eventually(lambda: not desk.store.failures)
    await desk.end()
    assert desk.store.told[-11:-1] == ["x" * 10] * 10
    assert desk.store.told[-1].startswith("4990 more lines were dropped")


# --- outages


async def test_lines_that_could_not_be_stored_are_told_again_in_front() -> None:
    desk = Desk()
    desk.store.failures = [StoreBusy("away", 1), StoreBusy("away", 1)]
    desk.store.open.clear()
    desk.write("one")
    await eventually(lambda: desk.store.calls)
    desk.book.report(Progress(0.5))
    desk.write("two")
    desk.store.open.set()
    await eventually(lambda: len(desk.store.calls) == 3 and desk.book._writing is None)
    assert [lines for _, lines, _ in desk.store.calls] == [("one",), ("one", "50%", "two"), ("one", "50%", "two")]
    assert [(type(event), event.where) for event in desk.announced if isinstance(event, ServiceError)] == [
        (ServiceError, "logs")
    ] * 2


async def test_the_last_report_outlives_an_outage() -> None:
    desk = Desk()
    desk.store.failures = [StoreBusy("away", 1)]
    desk.book.report(Progress(0.5))
    await eventually(lambda: len(desk.store.calls) == 2 and desk.book._writing is None)
    assert desk.store.calls == [("log", ("50%",), Progress(0.5))] * 2


async def test_a_later_report_takes_the_place_of_one_that_could_not_be_stored() -> None:
    desk = Desk()
    desk.store.failures = [StoreBusy("away", 1)]
    desk.store.open.clear()
    desk.book.report(Progress(0.5))
    await eventually(lambda: desk.store.calls)
    desk.book.report(Progress(0.6))
    desk.store.open.set()
    await eventually(lambda: len(desk.store.calls) == 2 and desk.book._writing is None)
    assert desk.store.calls[1] == ("log", ("50%", "60%"), Progress(0.6))


async def test_lines_that_cannot_even_be_spelled_do_not_cost_the_job_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()

    def refuse(*_: object) -> Awaitable[bool]:
        raise TypeError("such objects are unsupported")

    monkeypatch.setattr(desk.store, "log", refuse)
    desk.write("poison")
    assert await desk.end()
    assert [call[0] for call in desk.store.calls] == ["end"]
    assert [event.where for event in desk.announced if isinstance(event, ServiceError)] == ["logs"]


async def test_lines_that_can_never_be_stored_are_given_up() -> None:
    desk = Desk()
    desk.store.failures = [StoreError("broken")]
    desk.write("poison")
    await eventually(lambda: desk.announced)
    desk.write("wholesome")
    await eventually(lambda: len(desk.store.calls) == 2)
    assert desk.store.told == ["poison", "wholesome"]


# --- the end


@pytest.mark.parametrize("wait", [True, False])
async def test_the_last_lines_are_told_in_front_of_the_end(wait: bool) -> None:
    desk = Desk()
    desk.write("one", "two")
    assert await desk.end(wait=wait)
    assert desk.store.calls == [("log", ("one", "two"), None), ("end", (), None)]


@pytest.mark.parametrize(("wait", "told"), [(False, ["log", "end"]), (True, ["log"])])
async def test_the_end_is_told_before_the_last_lines_are_stored_unless_it_must_wait(wait: bool, told: list[str]) -> None:
    desk = Desk()
    desk.store.open.clear()
    desk.write("one")
    ending = asyncio.create_task(desk.end(wait=wait))
    for _ in range(10):
        await asyncio.sleep(0)
    assert [name for name, _, _ in desk.store.calls] == told
    assert not ending.done()
    desk.store.open.set()
    assert await ending


async def test_what_is_on_its_way_comes_first() -> None:
    desk = Desk()
    desk.store.failures = [StoreBusy("away", 1)]
    desk.store.open.clear()
    desk.write("one")
    await eventually(lambda: desk.store.calls)
    desk.write("two")
    ending = asyncio.create_task(desk.end())
    await asyncio.sleep(0)
    desk.store.open.set()
    assert await ending
    assert [lines for _, lines, _ in desk.store.calls] == [("one",), ("one", "two"), ()]


async def test_an_end_that_is_told_again_brings_lines_that_failed_again() -> None:
    desk = Desk()
    desk.store.failures = [StoreBusy("away", 1)]
    desk.write("one")
    with pytest.raises(StoreBusy):
        await desk.end(wait=True)
    assert await desk.end(wait=True)
    assert desk.store.calls == [("log", ("one",), None), ("log", ("one",), None), ("end", (), None)]


async def test_an_end_whose_lines_failed_is_to_be_told_again() -> None:
    desk = Desk()
    desk.store.failures = [StoreBusy("away", 1)]
    desk.write("one")
    with pytest.raises(StoreBusy):
        await desk.end()
    assert await desk.end()
    assert [name for name, _, _ in desk.store.calls] == ["log", "end", "log", "end"]


async def test_an_end_that_is_told_twice_brings_its_lines_once() -> None:
    desk = Desk(size=3)
    desk.write("one", "two")
    await desk.end()
    await desk.end()
    assert desk.store.told == ["one", "1 more lines were dropped: one attempt keeps at most 10000 lines and 3 bytes"]


async def test_after_the_end_nothing_is_taken() -> None:
    desk = Desk()
    await desk.end()
    desk.write("too late")
    desk.book.report(Progress(0.5))
    for _ in range(10):
        await asyncio.sleep(0)
    assert desk.store.calls == [("end", (), None)]


async def test_who_lost_the_claim_forgets_the_rest() -> None:
    desk = Desk()
    desk.store.held = False
    desk.write("one")
    await eventually(lambda: desk.book._closed)
    desk.write("two")
    await desk.end()
    assert desk.store.told == ["one"]


async def test_a_cancelled_end_still_brings_its_lines() -> None:
    desk = Desk()
    desk.store.open.clear()
    desk.write("one")
    ending = asyncio.create_task(desk.end(wait=True))
    await eventually(lambda: desk.store.calls)
    ending.cancel()
    await asyncio.wait((ending,))
    desk.store.open.set()
    assert await desk.end(wait=True)
    assert desk.store.calls == [("log", ("one",), None), ("end", (), None)]


async def test_a_repeated_attempt_says_so() -> None:
    desk = Desk(attempt=2)
    desk.book.write(make_line(0, LogLevel.INFO, "x", {"step": 1}))
    lines, _ = desk.book._take()
    assert lines[0].labels == {"step": "1", "attempt": "2"}
    desk.book.discard()


def test_a_thread_that_outlives_the_loop_does_no_harm() -> None:
    async def begin() -> Desk:
        return Desk()

    desk = asyncio.run(begin())
    desk.write("into the void")
    desk.book.report(Progress(0.5))
