from __future__ import annotations

import asyncio
import threading

import pytest

from queue_middleware.aside import aside
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
