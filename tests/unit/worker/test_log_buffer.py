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


class FakeStore:
    """Records its calls, and returns when the test allows it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[str, ...], Progress | None]] = []
        self.failures: list[QueueError] = []
        self.held = True
        self.open = asyncio.Event()
        self.open.set()

    def log(self, claim: Claim, lines: Sequence[LogLine], progress: Progress | None = None) -> Awaitable[bool]:
        self.calls.append(("log", tuple(line.message for line in lines), progress))
        return self._respond(self.failures.pop(0) if self.failures else None)

    async def _respond(self, failure: QueueError | None) -> bool:
        await self.open.wait()
        if failure is not None:
            raise failure
        return self.held

    async def end(self, what: str) -> bool:
        self.calls.append((what, (), None))
        return True

    @property
    def messages(self) -> list[str]:
        return [message for _, lines, _ in self.calls for message in lines]


class Setup:
    """A log buffer with its store, and the emitted events."""

    def __init__(self, *, size: int = 1000, attempt: int = 1) -> None:
        self.store = FakeStore()
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


async def test_lines_are_collected_and_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup()
    setup.write("one", "two", "three")
    assert setup.store.calls == []
    await eventually(lambda: setup.store.calls)
    setup.write("four")
    await eventually(lambda: len(setup.store.calls) == 2)
    assert setup.store.calls == [("log", ("one", "two", "three"), None), ("log", ("four",), None)]


async def test_one_write_at_a_time() -> None:
    setup = Setup()
    setup.store.open.clear()
    setup.write("one")
    await eventually(lambda: setup.store.calls)
    setup.write("two")
    for _ in range(20):
        await asyncio.sleep(0)
    setup.write("three")
    assert setup.store.messages == ["one"]
    setup.store.open.set()
    await eventually(lambda: len(setup.store.calls) == 2)
    assert setup.store.messages == ["one", "two", "three"]


async def test_all_lines_from_threads_are_written() -> None:
    setup = Setup(size=10**6)
    threads = [threading.Thread(target=setup.write, args=[f"{n} {m}" for m in range(100)]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await setup.end()
    for n in range(8):
        mine = [message for message in setup.store.messages if message.startswith(f"{n} ")]
        assert mine == [f"{n} {m}" for m in range(100)]


# --- progress


async def test_the_last_report_is_written_and_is_a_line_at_its_position() -> None:
    setup = Setup()
    for step in range(1000):
        setup.book.report(Progress(step / 1000, "early"))
    setup.write("before")
    setup.book.report(Progress(0.5, "half"))
    setup.write("after")
    await eventually(lambda: setup.store.calls)
    assert setup.store.calls == [("log", ("before", "50% half", "after"), Progress(0.5, "half"))]


async def test_an_unchanged_report_is_not_a_line() -> None:
    setup = Setup()
    for fraction in (0.5, 0.501, 0.51):
        setup.book.report(Progress(fraction, "half"))
        calls = len(setup.store.calls)
        await eventually(lambda calls=calls: len(setup.store.calls) > calls)
    assert [(lines, progress.fraction) for _, lines, progress in setup.store.calls if progress] == [
        (("50% half",), 0.5),
        ((), 0.501),
        (("51% half",), 0.51),
    ]


async def test_the_last_report_is_among_the_last_lines() -> None:
    setup = Setup()
    setup.book.report(Progress(1.0, "done"))
    await setup.end()
    assert setup.store.messages == ["100% done"]


# --- bounds


async def test_too_many_bytes_are_dropped_and_counted() -> None:
    setup = Setup(size=10)
    setup.write("12345", "123456", "1", "2")
    await setup.end()
    assert setup.store.messages == ["12345", "3 more lines were dropped: one attempt keeps at most 10000 lines and 10 bytes"]


async def test_too_many_lines_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_buffer, "MAX_LINES", 3)
    setup = Setup()
    setup.write("one", "two", "three", "four")
    await eventually(lambda: setup.store.calls)
    setup.write("five")
    setup.book.report(Progress(0.5))
    await setup.end()
    assert setup.store.messages[:3] == ["one", "two", "three"]
    assert setup.store.messages[3:] == ["2 more lines were dropped: one attempt keeps at most 3 lines and 1000 bytes"]


async def test_with_a_limit_of_zero_only_progress_is_kept() -> None:
    setup = Setup(size=0)
    setup.write("one")
    setup.book.report(Progress(0.5))
    await eventually(lambda: setup.store.calls)
    await setup.end()
    assert setup.store.calls == [("log", (), Progress(0.5)), ("end", (), None)]


async def test_memory_is_bounded_during_an_outage() -> None:
    setup = Setup(size=100)
    setup.store.failures = [StoreBusy("away", 1)] * 5
    for _ in range(5):
        setup.write(*["x" * 10] * 1000)
        failures = len(setup.store.failures)
        await eventually(lambda failures=failures: len(setup.store.failures) < failures or not failures)
    assert sum(len(line.message) for line in setup.book._lines) <= 100
    await eventually(lambda: not setup.store.failures)
    await setup.end()
    assert setup.store.messages[-11:-1] == ["x" * 10] * 10
    assert setup.store.messages[-1].startswith("4990 more lines were dropped")


# --- outages


async def test_lines_that_could_not_be_stored_are_written_again_first() -> None:
    setup = Setup()
    setup.store.failures = [StoreBusy("away", 1), StoreBusy("away", 1)]
    setup.store.open.clear()
    setup.write("one")
    await eventually(lambda: setup.store.calls)
    setup.book.report(Progress(0.5))
    setup.write("two")
    setup.store.open.set()
    await eventually(lambda: len(setup.store.calls) == 3 and setup.book._writing is None)
    assert [lines for _, lines, _ in setup.store.calls] == [("one",), ("one", "50%", "two"), ("one", "50%", "two")]
    assert [(type(event), event.where) for event in setup.announced if isinstance(event, ServiceError)] == [
        (ServiceError, "logs")
    ] * 2


async def test_the_last_report_is_written_after_an_outage() -> None:
    setup = Setup()
    setup.store.failures = [StoreBusy("away", 1)]
    setup.book.report(Progress(0.5))
    await eventually(lambda: len(setup.store.calls) == 2 and setup.book._writing is None)
    assert setup.store.calls == [("log", ("50%",), Progress(0.5))] * 2


async def test_a_later_report_replaces_one_that_could_not_be_stored() -> None:
    setup = Setup()
    setup.store.failures = [StoreBusy("away", 1)]
    setup.store.open.clear()
    setup.book.report(Progress(0.5))
    await eventually(lambda: setup.store.calls)
    setup.book.report(Progress(0.6))
    setup.store.open.set()
    await eventually(lambda: len(setup.store.calls) == 2 and setup.book._writing is None)
    assert setup.store.calls[1] == ("log", ("50%", "60%"), Progress(0.6))


async def test_lines_that_cannot_be_serialized_do_not_prevent_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup()

    def refuse(*_: object) -> Awaitable[bool]:
        raise TypeError("such objects are unsupported")

    monkeypatch.setattr(setup.store, "log", refuse)
    setup.write("poison")
    assert await setup.end()
    assert [call[0] for call in setup.store.calls] == ["end"]
    assert [event.where for event in setup.announced if isinstance(event, ServiceError)] == ["logs"]


async def test_lines_that_can_never_be_stored_are_dropped() -> None:
    setup = Setup()
    setup.store.failures = [StoreError("broken")]
    setup.write("poison")
    await eventually(lambda: setup.announced)
    setup.write("wholesome")
    await eventually(lambda: len(setup.store.calls) == 2)
    assert setup.store.messages == ["poison", "wholesome"]


# --- the end


@pytest.mark.parametrize("wait", [True, False])
async def test_the_last_lines_are_written_before_the_end(wait: bool) -> None:
    setup = Setup()
    setup.write("one", "two")
    assert await setup.end(wait=wait)
    assert setup.store.calls == [("log", ("one", "two"), None), ("end", (), None)]


@pytest.mark.parametrize(("wait", "calls"), [(False, ["log", "end"]), (True, ["log"])])
async def test_the_end_does_not_wait_for_the_last_lines_unless_requested(wait: bool, calls: list[str]) -> None:
    setup = Setup()
    setup.store.open.clear()
    setup.write("one")
    ending = asyncio.create_task(setup.end(wait=wait))
    for _ in range(10):
        await asyncio.sleep(0)
    assert [name for name, _, _ in setup.store.calls] == calls
    assert not ending.done()
    setup.store.open.set()
    assert await ending


async def test_a_write_in_progress_is_finished_first() -> None:
    setup = Setup()
    setup.store.failures = [StoreBusy("away", 1)]
    setup.store.open.clear()
    setup.write("one")
    await eventually(lambda: setup.store.calls)
    setup.write("two")
    ending = asyncio.create_task(setup.end())
    await asyncio.sleep(0)
    setup.store.open.set()
    assert await ending
    assert [lines for _, lines, _ in setup.store.calls] == [("one",), ("one", "two"), ()]


async def test_a_repeated_end_writes_failed_lines_again() -> None:
    setup = Setup()
    setup.store.failures = [StoreBusy("away", 1)]
    setup.write("one")
    with pytest.raises(StoreBusy):
        await setup.end(wait=True)
    assert await setup.end(wait=True)
    assert setup.store.calls == [("log", ("one",), None), ("log", ("one",), None), ("end", (), None)]


async def test_an_end_whose_lines_failed_must_be_repeated() -> None:
    setup = Setup()
    setup.store.failures = [StoreBusy("away", 1)]
    setup.write("one")
    with pytest.raises(StoreBusy):
        await setup.end()
    assert await setup.end()
    assert [name for name, _, _ in setup.store.calls] == ["log", "end", "log", "end"]


async def test_a_repeated_end_writes_its_lines_once() -> None:
    setup = Setup(size=3)
    setup.write("one", "two")
    await setup.end()
    await setup.end()
    assert setup.store.messages == ["one", "1 more lines were dropped: one attempt keeps at most 10000 lines and 3 bytes"]


async def test_lines_after_the_end_are_ignored() -> None:
    setup = Setup()
    await setup.end()
    setup.write("too late")
    setup.book.report(Progress(0.5))
    for _ in range(10):
        await asyncio.sleep(0)
    assert setup.store.calls == [("end", (), None)]


async def test_after_a_lost_claim_the_remaining_lines_are_dropped() -> None:
    setup = Setup()
    setup.store.held = False
    setup.write("one")
    await eventually(lambda: setup.book._closed)
    setup.write("two")
    await setup.end()
    assert setup.store.messages == ["one"]


async def test_a_cancelled_end_still_writes_its_lines() -> None:
    setup = Setup()
    setup.store.open.clear()
    setup.write("one")
    ending = asyncio.create_task(setup.end(wait=True))
    await eventually(lambda: setup.store.calls)
    ending.cancel()
    await asyncio.wait((ending,))
    setup.store.open.set()
    assert await setup.end(wait=True)
    assert setup.store.calls == [("log", ("one",), None), ("end", (), None)]


async def test_a_repeated_attempt_has_a_line_about_it() -> None:
    setup = Setup(attempt=2)
    setup.book.write(make_line(0, LogLevel.INFO, "x", {"step": 1}))
    lines, _ = setup.book._take()
    assert lines[0].labels == {"step": "1", "attempt": "2"}
    setup.book.discard()


def test_a_thread_that_outlives_the_event_loop_does_not_fail() -> None:
    async def begin() -> Setup:
        return Setup()

    setup = asyncio.run(begin())
    setup.write("into the void")
    setup.book.report(Progress(0.5))
