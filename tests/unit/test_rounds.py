"""The loop of poller and delivery engine by itself: when it claims, what it insists on, and how it ends."""

import asyncio

import pytest

from queue_middleware.errors import StoreBusy, UnknownRequest
from queue_middleware.events import Outage, Recovered
from queue_middleware.rounds import LOOK_AGAIN, Rounds, rest
from tests.standins import looping


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
    monkeypatch.setattr("queue_middleware.rounds.exponential", lambda number, longest: 0.0)


async def test_it_claims_at_once_when_woken_and_when_more_is_due(claims, heard):
    rounds = Rounds("test", claims, heard.append)
    async with asyncio.timeout(10), looping(rounds):
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

    rounds = Rounds("test", claim, heard.append)
    async with asyncio.timeout(10), looping(rounds):
        await claims.made.acquire()
        await claims.made.acquire()


async def test_outages_pause_longer_and_longer_until_one_claim_succeeds(claims, heard, monkeypatch):
    numbers = []
    monkeypatch.setattr("queue_middleware.rounds.exponential", lambda number, longest: numbers.append(number) or 0.0)
    claims.errors = [StoreBusy("busy", 1), RuntimeError("odd")]
    rounds = Rounds("test", claims, heard.append)
    async with asyncio.timeout(10), looping(rounds):
        for _ in range(3):
            await claims.made.acquire()
        claims.errors = [StoreBusy("busy", 1)]
        rounds.wake()
        for _ in range(2):
            await claims.made.acquire()
    assert numbers == [1, 2, 1]
    assert [(type(event), event.where) for event in heard] == [
        (kind, "test") for kind in (Outage, Outage, Recovered, Outage, Recovered)
    ]
    assert [event.failures for event in heard if isinstance(event, Recovered)] == [2, 1]


async def test_stopped_before_it_ran_it_claims_nothing(claims, heard):
    rounds = Rounds("test", claims, heard.append)
    rounds.stop()
    await rounds.run()
    assert claims.made.locked()


async def test_work_is_known_by_its_token_until_it_has_ended(claims, heard):
    rounds, gate, ended = Rounds("test", claims, heard.append), asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(10), looping(rounds):
        await claims.made.acquire()
        rounds.begin(wait_for(gate), "work", 7, ended.set)
        assert rounds.tokens() == [7]
        gate.set()
        await ended.wait()
        assert rounds.tokens() == []


async def wait_for(gate):
    await gate.wait()


async def test_the_end_of_work_is_told_also_of_one_that_was_cancelled_before_its_first_step(claims, heard):
    rounds, ended = Rounds("test", claims, heard.append), asyncio.Event()
    async with asyncio.timeout(10), looping(rounds):
        await claims.made.acquire()
        rounds.begin(wait_for(asyncio.Event()), "work", 7, ended.set)
        (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "work")
        task.cancel()
        await ended.wait()
        assert rounds.tokens() == []


async def test_what_is_under_way_when_it_stops_has_its_grace_and_no_more(claims, heard):
    rounds, gate, ended = Rounds("test", claims, heard.append, grace=0.01), asyncio.Event(), []
    async with looping(rounds):
        await claims.made.acquire()
        rounds.begin(wait_for(gate), "late", 1, lambda: ended.append("late"))
    assert ended == ["late"]


async def test_after_a_defect_it_can_be_run_again(claims, heard):
    rounds, ended = Rounds("test", claims, heard.append), []

    async def defect():
        raise RuntimeError("a defect")

    task = asyncio.create_task(rounds.run())
    await claims.made.acquire()
    rounds.begin(defect(), "defect", 1, lambda: ended.append(1))
    rounds.begin(wait_for(asyncio.Event()), "other", 2, lambda: ended.append(2))
    with pytest.raises(ExceptionGroup):
        await task
    assert (sorted(ended), rounds.tokens()) == ([1, 2], [])
    async with asyncio.timeout(10), looping(rounds):
        await claims.made.acquire()


async def test_the_store_is_told_over_outages(claims, heard, no_pause):
    rounds, answers = Rounds("test", claims, heard.append), [StoreBusy("busy", 1), RuntimeError("odd"), 42]

    async def verb():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await rounds.insist(verb) == 42
    assert [type(event) for event in heard] == [Outage, Outage, Recovered]


@pytest.mark.parametrize("error", [UnknownRequest("the request is no longer kept"), StoreBusy("busy", 1)])
async def test_but_not_of_what_it_keeps_no_longer_nor_after_the_stop(claims, heard, error):
    rounds = Rounds("test", claims, heard.append)
    if isinstance(error, StoreBusy):
        rounds.stop()

    async def verb():
        raise error

    assert await rounds.insist(verb) is None
    assert heard == []


async def test_a_rest_ends_with_its_event_or_its_time():
    event = asyncio.Event()
    await rest(event, 0.0)
    event.set()
    async with asyncio.timeout(10):
        await rest(event, 3600.0)


@pytest.mark.parametrize("due", [None, 3600.0, 1e9])
async def test_whatever_the_clock_says_it_looks_again_soon(claims, heard, monkeypatch, due):
    """What is due in an hour by a clock that was set back is due at once when it is right again."""
    waits = []

    async def note(event, seconds):
        waits.append(seconds)
        rounds.stop()

    monkeypatch.setattr("queue_middleware.rounds.rest", note)
    claims.due = due
    rounds = Rounds("test", claims, heard.append)
    await rounds.run()
    assert waits == [LOOK_AGAIN]
    assert LOOK_AGAIN <= 5


@pytest.mark.parametrize("hurried_first", [False, True])
async def test_who_is_in_a_hurry_waits_for_nothing(claims, heard, hurried_first):
    rounds = Rounds("test", claims, heard.append, grace=600)
    ended = asyncio.Event()
    running = asyncio.create_task(rounds.run())
    async with asyncio.timeout(10):
        await claims.made.acquire()
        rounds.begin(asyncio.Event().wait(), "endless", 1, ended.set)
        if hurried_first:
            rounds.hurry()
        rounds.stop()
        await asyncio.sleep(0)
        rounds.hurry()
        await running
    assert ended.is_set()
