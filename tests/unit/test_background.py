"""Threads of the queue's own, the claim loop, and retrying over outages."""

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
from queue_middleware.events import ErrorStreak, Recovered, ServiceError
from tests.support.doubles import running
from tests.support.queue_client import eventually
from tests.support.threads import all_threads_busy

# --- threads


def divided(number: int, by: int) -> float:
    return number / by


async def test_it_gives_what_the_call_gives_and_raises_what_it_raises() -> None:
    assert await run_in_thread(divided, 6, 3) == 2
    with pytest.raises(ZeroDivisionError):
        await run_in_thread(divided, 6, 0)


async def test_threads_of_the_application_are_not_waited_for() -> None:
    with all_threads_busy():
        assert await asyncio.wait_for(run_in_thread(divided, 6, 3), 5) == 2


async def test_who_is_cancelled_waits_no_longer_and_nobody_is_kept() -> None:
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


async def test_small_work_is_done_at_once_and_large_work_by_a_few_at_a_time() -> None:
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
    """Counts the rounds; in each it does what it was told to do then."""

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
def heard():
    return []


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr("queue_middleware.background.exponential", lambda number, longest: 0.0)


async def test_it_claims_at_once_when_woken_and_when_more_is_due(claims, heard):
    rounds = ClaimLoop(claims, partial(ErrorStreak, "test", heard.append))
    async with asyncio.timeout(10), running(rounds):
        await claims.made.acquire()
        claims.due = 0.0
        rounds.wake()
        for _ in range(3):
            await claims.made.acquire()
    assert heard == []


async def test_what_wakes_it_while_it_claims_is_not_forgotten(claims, heard):
    async def claim():
        if not claims.made._value:
            rounds.wake()
        return await claims()

    rounds = ClaimLoop(claim, partial(ErrorStreak, "test", heard.append))
    async with asyncio.timeout(10), running(rounds):
        await claims.made.acquire()
        await claims.made.acquire()


async def test_outages_pause_longer_and_longer_until_one_claim_succeeds(claims, heard, monkeypatch):
    numbers = []
    monkeypatch.setattr("queue_middleware.background.exponential", lambda number, longest: numbers.append(number) or 0.0)
    claims.errors = [StoreBusy("busy", 1), RuntimeError("odd")]
    rounds = ClaimLoop(claims, partial(ErrorStreak, "test", heard.append))
    async with asyncio.timeout(10), running(rounds):
        for _ in range(3):
            await claims.made.acquire()
        claims.errors = [StoreBusy("busy", 1)]
        rounds.wake()
        for _ in range(2):
            await claims.made.acquire()
    assert numbers == [1, 2, 1]
    assert [(type(event), event.where) for event in heard] == [
        (kind, "test") for kind in (ServiceError, ServiceError, Recovered, ServiceError, Recovered)
    ]
    assert [event.failures for event in heard if isinstance(event, Recovered)] == [2, 1]


async def test_stopped_before_it_ran_it_claims_nothing(claims, heard):
    rounds = ClaimLoop(claims, partial(ErrorStreak, "test", heard.append))
    rounds.stop()
    await rounds.run()
    assert claims.made.locked()


async def test_work_is_known_by_its_token_until_it_has_ended(claims, heard):
    rounds, gate, ended = ClaimLoop(claims, partial(ErrorStreak, "test", heard.append)), asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(10), running(rounds):
        await claims.made.acquire()
        rounds.spawn(opened(gate), "work", 7, ended.set)
        assert rounds.tokens() == [7]
        gate.set()
        await ended.wait()
        assert rounds.tokens() == []


async def opened(gate):
    await gate.wait()


async def test_the_end_of_work_is_told_also_of_one_that_was_cancelled_before_its_first_step(claims, heard):
    rounds, ended = ClaimLoop(claims, partial(ErrorStreak, "test", heard.append)), asyncio.Event()
    async with asyncio.timeout(10), running(rounds):
        await claims.made.acquire()
        rounds.spawn(opened(asyncio.Event()), "work", 7, ended.set)
        (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "work")
        task.cancel()
        await ended.wait()
        assert rounds.tokens() == []


async def test_what_is_under_way_when_it_stops_has_its_grace_and_no_more(claims, heard):
    rounds, gate, ended = ClaimLoop(claims, partial(ErrorStreak, "test", heard.append), grace=0.01), asyncio.Event(), []
    async with running(rounds):
        await claims.made.acquire()
        rounds.spawn(opened(gate), "late", 1, lambda: ended.append("late"))
    assert ended == ["late"]


async def test_after_a_defect_it_can_be_run_again(claims, heard):
    rounds, ended = ClaimLoop(claims, partial(ErrorStreak, "test", heard.append)), []

    async def defect():
        raise RuntimeError("a defect")

    task = asyncio.create_task(rounds.run())
    await claims.made.acquire()
    rounds.spawn(defect(), "defect", 1, lambda: ended.append(1))
    rounds.spawn(opened(asyncio.Event()), "other", 2, lambda: ended.append(2))
    with pytest.raises(ExceptionGroup):
        await task
    assert (sorted(ended), rounds.tokens()) == ([1, 2], [])
    async with asyncio.timeout(10), running(rounds):
        await claims.made.acquire()


async def test_the_store_is_told_over_outages(claims, heard, no_pause):
    rounds, responses = (
        ClaimLoop(claims, partial(ErrorStreak, "test", heard.append)),
        [StoreBusy("busy", 1), RuntimeError("odd"), 42],
    )

    async def verb():
        response = responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response

    assert await rounds.retry_on_outage(verb) == 42
    assert [type(event) for event in heard] == [ServiceError, ServiceError, Recovered]


@pytest.mark.parametrize("error", [UnknownRequest("the request is no longer kept"), StoreBusy("busy", 1)])
async def test_but_not_of_what_it_keeps_no_longer_nor_after_the_stop(claims, heard, error):
    rounds = ClaimLoop(claims, partial(ErrorStreak, "test", heard.append))
    if isinstance(error, StoreBusy):
        rounds.stop()

    async def verb():
        raise error

    assert await rounds.retry_on_outage(verb) is None
    assert heard == []


async def test_a_rest_ends_with_its_event_or_its_time():
    event = asyncio.Event()
    await wait_for(event, 0.0)
    event.set()
    async with asyncio.timeout(10):
        await wait_for(event, 3600.0)


@pytest.mark.parametrize("due", [None, 3600.0, 1e9])
async def test_whatever_the_clock_says_it_looks_again_soon(claims, heard, monkeypatch, due):
    """What is due in an hour by a clock that was set back is due at once when it is right again."""
    waits = []

    async def note(event, seconds):
        waits.append(seconds)
        rounds.stop()

    monkeypatch.setattr("queue_middleware.background.wait_for", note)
    claims.due = due
    rounds = ClaimLoop(claims, partial(ErrorStreak, "test", heard.append))
    await rounds.run()
    assert waits == [LONGEST_WAIT]
    assert LONGEST_WAIT <= 5


@pytest.mark.parametrize("hurried_first", [False, True])
async def test_who_is_in_a_hurry_waits_for_nothing(claims, heard, hurried_first):
    rounds = ClaimLoop(claims, partial(ErrorStreak, "test", heard.append), grace=600)
    ended = asyncio.Event()
    running = asyncio.create_task(rounds.run())
    async with asyncio.timeout(10):
        await claims.made.acquire()
        rounds.spawn(asyncio.Event().wait(), "endless", 1, ended.set)
        if hurried_first:
            rounds.hurry()
        rounds.stop()
        await asyncio.sleep(0)
        rounds.hurry()
        await running
    assert ended.is_set()


# --- retry_on_outage


async def test_finished_work_is_stored_again_until_the_store_accepts_it(heard, monkeypatch):
    monkeypatch.setattr("queue_middleware.background.OUTAGE_PAUSE", 0.0)
    results = [StoreBusy("busy", 1), 42]

    async def store():
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    reporter = ErrorStreak("settle", heard.append)
    assert await retry_on_outage(store, StoreBusy("busy", 1), reporter, lambda: False) == 42
    assert [type(event) for event in heard] == [ServiceError, ServiceError, Recovered]


async def test_no_attempt_is_made_once_the_loop_is_ending(heard):
    async def store():
        raise AssertionError

    assert await retry_on_outage(store, StoreBusy("busy", 1), ErrorStreak("settle", heard.append), lambda: True) is False
    assert heard == []


async def test_a_defect_is_not_taken_for_an_outage(heard):
    async def store():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await retry_on_outage(store, None, ErrorStreak("settle", heard.append), lambda: False)
