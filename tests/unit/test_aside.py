from __future__ import annotations

import asyncio
import threading

import pytest

from queue_middleware.aside import SMALL, Lane, aside
from tests.queueing import eventually
from tests.threads import all_threads_kept


def divided(number: int, by: int) -> float:
    return number / by


async def test_it_gives_what_the_call_gives_and_raises_what_it_raises() -> None:
    assert await aside(divided, 6, 3) == 2
    with pytest.raises(ZeroDivisionError):
        await aside(divided, 6, 0)


async def test_threads_of_the_application_are_not_waited_for() -> None:
    with all_threads_kept():
        assert await asyncio.wait_for(aside(divided, 6, 3), 5) == 2


async def test_who_is_cancelled_waits_no_longer_and_nobody_is_kept() -> None:
    begun, gate = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())
        begun.set()
        gate.wait(10)

    task = asyncio.create_task(aside(work))
    assert await aside(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert threads[0].daemon
    gate.set()


async def test_small_work_is_done_at_once_and_large_work_by_a_few_at_a_time() -> None:
    lane = Lane(2)
    assert await lane.run(SMALL, threading.current_thread) is threading.main_thread()
    gate, lock = threading.Event(), threading.Lock()
    begun: list[threading.Thread] = []

    def work() -> None:
        with lock:
            begun.append(threading.current_thread())
        assert gate.wait(10)

    with all_threads_kept():
        running = [asyncio.ensure_future(lane.run(SMALL + 1, work)) for _ in range(5)]
        await eventually(lambda: len(begun) == 2)
        assert await lane.run(0, divided, 6, 3) == 2
        assert len(begun) == 2
        gate.set()
        await asyncio.wait_for(asyncio.gather(*running), 10)
    assert (len(begun), threading.main_thread() in begun) == (5, False)
