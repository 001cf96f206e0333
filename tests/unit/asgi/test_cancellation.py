from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from asgiref.sync import sync_to_async

from queue_middleware.asgi.cancellation import CancellableCall


async def start(call: CancellableCall) -> BaseException | None:
    return await call


THREADS: dict[str, Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]] = {
    "anyio": anyio.to_thread.run_sync,
    "asyncio": asyncio.to_thread,
    "asgiref": lambda work: sync_to_async(work, thread_sensitive=False)(),
}


@pytest.mark.parametrize("kind", THREADS)
async def test_a_call_in_a_thread_is_cancelled_only_when_the_thread_is_free(kind: str) -> None:
    entered, gate, steps = threading.Event(), threading.Event(), []

    def work() -> None:
        entered.set()
        steps.append("thread")
        assert gate.wait(10)

    async def handler() -> None:
        try:
            for _ in range(5):
                await THREADS[kind](work)
        finally:
            await asyncio.sleep(0)  # a `finally` block may await
            steps.append("tidied")

    call = CancellableCall(handler())
    task = asyncio.create_task(start(call))
    assert await asyncio.to_thread(entered.wait, 10)
    assert call.in_thread()
    call.cancel_next()
    await asyncio.sleep(0.01)
    assert not task.done()
    gate.set()
    assert isinstance(await task, asyncio.CancelledError)
    assert steps == ["thread", "tidied"]


async def test_a_call_without_a_thread_is_cancelled_through_its_task() -> None:
    async def handler() -> None:
        await asyncio.Event().wait()

    call = CancellableCall(handler())
    task = asyncio.create_task(start(call))
    await asyncio.sleep(0)
    assert not call.in_thread()
    task.cancel()
    assert isinstance(await task, asyncio.CancelledError)


async def test_errors_are_returned_and_not_raised() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    error = await CancellableCall(fail())
    assert isinstance(error, LookupError)
    assert error.__traceback__ is not None
    assert error.__traceback__.tb_frame.f_code is CancellableCall.__await__.__code__

    async def swallow() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    task = asyncio.create_task(start(CancellableCall(swallow())))
    await asyncio.sleep(0)
    task.cancel()
    assert await task is None


async def test_closing_a_call_closes_its_coroutine() -> None:
    closed: list[bool] = []

    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    outer = start(CancellableCall(handler()))
    outer.send(None)
    outer.close()
    assert closed == [True]
