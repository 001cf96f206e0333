"""Background threads, the claim loop, and retrying after outages."""

import asyncio
import threading
from functools import partial

import pytest

from queue_middleware.background import (
    INLINE_BYTES,
    LONGEST_WAIT,
    ClaimLoop,
    ThreadLimiter,
    retry_on_outage,
    run_in_thread,
    wait_for,
)
from queue_middleware.errors import StoreBusy, UnknownRequest
from queue_middleware.events import Recovered, ServiceError
from queue_middleware.events.error_streak import ErrorStreak
from tests.support.doubles import running
from tests.support.queue_client import eventually
from tests.support.threads import all_threads_busy

# --- threads


def divided(number: int, by: int) -> float:
    return number / by


async def test_a_call_in_a_thread_returns_and_raises_like_the_function() -> None:
    assert await run_in_thread(divided, 6, 3) == 2
    with pytest.raises(ZeroDivisionError):
        await run_in_thread(divided, 6, 0)


async def test_busy_threads_of_the_application_do_not_delay_the_queues_threads() -> None:
    with all_threads_busy():
        assert await asyncio.wait_for(run_in_thread(divided, 6, 3), 5) == 2


async def test_a_cancelled_caller_stops_waiting_and_blocks_no_other() -> None:
    begun, gate = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())
        begun.set()
        gate.wait(10)

    task = asyncio.create_task(run_in_thread(work))
    assert await run_in_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert threads[0].daemon
    gate.set()


def test_a_limiter_serves_one_event_loop_after_another() -> None:
    """The limiter of an endpoint outlives the event loop: a queue can be started again in another one."""
    lane = ThreadLimiter(1)

    async def both() -> list[float]:
        large = INLINE_BYTES + 1
        return await asyncio.gather(lane.run(large, divided, 6, 3), lane.run(large, divided, 6, 2))

    assert asyncio.run(both()) == [2, 3]
    assert asyncio.run(both()) == [2, 3]


async def test_small_work_runs_inline_and_large_work_in_a_few_threads() -> None:
    lane = ThreadLimiter(2)
    assert await lane.run(INLINE_BYTES, threading.current_thread) is threading.main_thread()
    gate, lock = threading.Event(), threading.Lock()
    begun: list[threading.Thread] = []

    def work() -> None:
        with lock:
            begun.append(threading.current_thread())
        assert gate.wait(10)

    with all_threads_busy():
        running = [asyncio.ensure_future(lane.run(INLINE_BYTES + 1, work)) for _ in range(5)]
        await eventually(lambda: len(begun) == 2)
        assert await lane.run(0, divided, 6, 3) == 2
        assert len(begun) == 2
        gate.set()
        await asyncio.wait_for(asyncio.gather(*running), 10)
    assert (len(begun), threading.main_thread() in begun) == (5, False)


# --- the claim loop


class Claims:
    """Counts the rounds; each round does what the test set for it."""

    def __init__(self) -> None:
        self.made = asyncio.Semaphore(0)
        self.due: float | None = None
        self.errors: list[Exception] = []

    async def __call__(self) -> float | None:
        self.made.release()
        if self.errors:
            raise self.errors.pop(0)
        return self.due


@pytest.fixture
def claims():
    return Claims()


@pytest.fixture
def events():
    return []


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr("queue_middleware.background.exponential", lambda number, longest: 0.0)


async def test_it_claims_at_once_when_woken_and_when_more_is_due(claims, events):
    loop = ClaimLoop(claims, partial(ErrorStreak, "test", events.append))
    async with asyncio.timeout(10), running(loop):
        await claims.made.acquire()
        claims.due = 0.0
        loop.wake()
        for _ in range(3):
            await claims.made.acquire()
    assert events == []


async def test_a_wakeup_during_a_claim_is_not_lost(claims, events):
    async def claim():
        if not claims.made._value:
            loop.wake()
        return await claims()

    loop = ClaimLoop(claim, partial(ErrorStreak, "test", events.append))
    async with asyncio.timeout(10), running(loop):
        await claims.made.acquire()
        await claims.made.acquire()


async def test_pauses_grow_during_an_outage_until_a_claim_succeeds(claims, events, monkeypatch):
    numbers = []
    monkeypatch.setattr("queue_middleware.background.exponential", lambda number, longest: numbers.append(number) or 0.0)
    claims.errors = [StoreBusy("busy", 1), RuntimeError("odd")]
    loop = ClaimLoop(claims, partial(ErrorStreak, "test", events.append))
    async with asyncio.timeout(10), running(loop):
        for _ in range(3):
            await claims.made.acquire()
        claims.errors = [StoreBusy("busy", 1)]
        loop.wake()
        for _ in range(2):
            await claims.made.acquire()
    assert numbers == [1, 2, 1]
    assert [(type(event), event.where) for event in events] == [
        (kind, "test") for kind in (ServiceError, ServiceError, Recovered, ServiceError, Recovered)
    ]
    assert [event.failures for event in events if isinstance(event, Recovered)] == [2, 1]


async def test_a_loop_stopped_before_it_runs_claims_nothing(claims, events):
    loop = ClaimLoop(claims, partial(ErrorStreak, "test", events.append))
    loop.stop()
    await loop.run()
    assert claims.made.locked()


async def test_running_work_is_listed_by_its_token(claims, events):
    loop, gate, ended = ClaimLoop(claims, partial(ErrorStreak, "test", events.append)), asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(10), running(loop):
        await claims.made.acquire()
        loop.spawn(opened(gate), "work", 7, ended.set)
        assert loop.tokens() == [7]
        gate.set()
        await ended.wait()
        assert loop.tokens() == []


async def opened(gate):
    await gate.wait()


async def test_the_end_of_work_cancelled_before_its_first_step_is_reported_too(claims, events):
    loop, ended = ClaimLoop(claims, partial(ErrorStreak, "test", events.append)), asyncio.Event()
    async with asyncio.timeout(10), running(loop):
        await claims.made.acquire()
        loop.spawn(opened(asyncio.Event()), "work", 7, ended.set)
        (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "work")
        task.cancel()
        await ended.wait()
        assert loop.tokens() == []


async def test_running_work_has_the_grace_period_at_the_stop_and_no_longer(claims, events):
    loop, gate, ended = ClaimLoop(claims, partial(ErrorStreak, "test", events.append), grace=0.01), asyncio.Event(), []
    async with running(loop):
        await claims.made.acquire()
        loop.spawn(opened(gate), "late", 1, lambda: ended.append("late"))
    assert ended == ["late"]


async def test_the_loop_can_run_again_after_a_defect(claims, events):
    loop, ended = ClaimLoop(claims, partial(ErrorStreak, "test", events.append)), []

    async def defect():
        raise RuntimeError("a defect")

    task = asyncio.create_task(loop.run())
    await claims.made.acquire()
    loop.spawn(defect(), "defect", 1, lambda: ended.append(1))
    loop.spawn(opened(asyncio.Event()), "other", 2, lambda: ended.append(2))
    with pytest.raises(ExceptionGroup):
        await task
    assert (sorted(ended), loop.tokens()) == ([1, 2], [])
    async with asyncio.timeout(10), running(loop):
        await claims.made.acquire()


async def test_settling_is_retried_after_outages(claims, events, no_pause):
    loop, results = (
        ClaimLoop(claims, partial(ErrorStreak, "test", events.append)),
        [StoreBusy("busy", 1), RuntimeError("odd"), 42],
    )

    async def method():
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    assert await loop.retry_until_stop(method) == 42
    assert [type(event) for event in events] == [ServiceError, ServiceError, Recovered]


@pytest.mark.parametrize("error", [UnknownRequest("the request is no longer kept"), StoreBusy("busy", 1)])
async def test_settling_is_not_retried_after_a_lost_claim_or_the_stop(claims, events, error):
    loop = ClaimLoop(claims, partial(ErrorStreak, "test", events.append))
    if isinstance(error, StoreBusy):
        loop.stop()

    async def method():
        raise error

    assert await loop.retry_until_stop(method) is None
    assert events == []


async def test_a_pause_ends_with_its_event_or_its_time():
    event = asyncio.Event()
    await wait_for(event, 0.0)
    event.set()
    async with asyncio.timeout(10):
        await wait_for(event, 3600.0)


@pytest.mark.parametrize("due", [None, 3600.0, 1e9])
async def test_due_times_are_checked_again_soon_whatever_the_clock_says(claims, events, monkeypatch, due):
    """What is due in an hour by a clock that was set back is due at once when the clock is right again."""
    waits = []

    async def record(event, seconds):
        waits.append(seconds)
        loop.stop()

    monkeypatch.setattr("queue_middleware.background.wait_for", record)
    claims.due = due
    loop = ClaimLoop(claims, partial(ErrorStreak, "test", events.append))
    await loop.run()
    assert waits == [LONGEST_WAIT]
    assert LONGEST_WAIT <= 5


@pytest.mark.parametrize("hurried_first", [False, True])
async def test_a_hurried_stop_does_not_wait(claims, events, hurried_first):
    loop = ClaimLoop(claims, partial(ErrorStreak, "test", events.append), grace=600)
    ended = asyncio.Event()
    running = asyncio.create_task(loop.run())
    async with asyncio.timeout(10):
        await claims.made.acquire()
        loop.spawn(asyncio.Event().wait(), "endless", 1, ended.set)
        if hurried_first:
            loop.hurry()
        loop.stop()
        await asyncio.sleep(0)
        loop.hurry()
        await running
    assert ended.is_set()


# --- retry_on_outage


async def test_finished_work_is_stored_again_until_the_store_accepts_it(events, monkeypatch):
    monkeypatch.setattr("queue_middleware.background.OUTAGE_PAUSE", 0.0)
    results = [StoreBusy("busy", 1), 42]

    async def store():
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    reporter = ErrorStreak("settle", events.append)
    assert await retry_on_outage(store, StoreBusy("busy", 1), reporter, lambda: False) == 42
    assert [type(event) for event in events] == [ServiceError, ServiceError, Recovered]


async def test_no_attempt_is_made_once_the_loop_is_ending(events):
    async def store():
        raise AssertionError

    assert await retry_on_outage(store, StoreBusy("busy", 1), ErrorStreak("settle", events.append), lambda: True) is False
    assert events == []


async def test_a_defect_is_not_taken_for_an_outage(events):
    async def store():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await retry_on_outage(store, None, ErrorStreak("settle", events.append), lambda: False)
