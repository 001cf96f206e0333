"""Hearing the signal that ends a process: beside the server, whoever else listens, and without a trace afterwards."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from queue_middleware.runtime.shutdown import ShutdownSignal

SIGNAL = signal.SIGTERM


class Handler:
    """Somebody's, who counts; with `inner` he hands on to it."""

    def __init__(self, inner: Any = None) -> None:
        self.heard = 0
        self._inner = inner

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.heard += 1
        if self._inner is not None:
            self._inner(number, frame)


class Told:
    def __init__(self) -> None:
        self.times = 0
        self.event = asyncio.Event()

    def __call__(self) -> None:
        self.times += 1
        self.event.set()

    async def heard(self) -> bool:
        async with asyncio.timeout(5):
            await self.event.wait()
        return True


@pytest.fixture
def server() -> Iterator[Handler]:
    """A server with a handler of its own; what was there before comes back after the test."""
    handler = Handler()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)}
    signal.signal(SIGNAL, handler)
    yield handler
    for number, old in before.items():
        signal.signal(number, old)


async def test_both_hear(server: Handler) -> None:
    told = Told()
    shutdown = ShutdownSignal(told)
    signal.raise_signal(SIGNAL)
    assert (server.heard, told.times) == (1, 0)
    shutdown.listen()
    shutdown.listen()
    signal.raise_signal(SIGNAL)
    assert server.heard == 2
    assert await told.heard()
    shutdown.close()
    shutdown.close()
    assert signal.getsignal(SIGNAL) is server


async def test_a_handler_of_the_event_loop_is_one_like_any_other(server: Handler) -> None:
    """gunicorn's own ASGI worker and hypercorn set theirs with `loop.add_signal_handler`."""
    loop = asyncio.get_running_loop()
    theirs = asyncio.Event()
    loop.add_signal_handler(SIGNAL, theirs.set)
    told = Told()
    shutdown = ShutdownSignal(told)
    shutdown.listen()
    signal.raise_signal(SIGNAL)
    assert await told.heard()
    async with asyncio.timeout(5):
        await theirs.wait()
    shutdown.close()
    theirs.clear()
    signal.raise_signal(SIGNAL)
    async with asyncio.timeout(5):
        await theirs.wait()
    loop.remove_signal_handler(SIGNAL)


async def test_hypercorn_tells_its_worker_processes_by_an_event(server: Handler) -> None:
    class Context:
        terminated = asyncio.Event()

    class HTTPStream:
        context = Context

        async def app_send(self) -> None:
            raise NotImplementedError

    told = Told()
    shutdown = ShutdownSignal(told)
    shutdown.listen(HTTPStream().app_send)
    shutdown.listen(HTTPStream().app_send)
    await asyncio.sleep(0)
    assert told.times == 0
    Context.terminated.set()
    assert await told.heard()
    shutdown.close()


@pytest.mark.parametrize("nobody", [signal.SIG_DFL, signal.SIG_IGN])
async def test_a_signal_without_a_handler_is_left_alone(server: Handler, nobody: Any) -> None:
    signal.signal(signal.SIGQUIT, nobody)
    shutdown = ShutdownSignal(Told())
    shutdown.listen()
    assert signal.getsignal(signal.SIGQUIT) is nobody
    shutdown.close()


async def test_a_server_that_comes_later_is_heard_too(server: Handler) -> None:
    told = Told()
    shutdown = ShutdownSignal(told)
    shutdown.listen()
    later = Handler()
    signal.signal(SIGNAL, later)
    shutdown.listen()
    signal.raise_signal(SIGNAL)
    assert await told.heard()
    assert (later.heard, server.heard) == (1, 0)
    shutdown.close()
    assert signal.getsignal(SIGNAL) is later


async def test_whoever_puts_himself_in_front_stays_there(server: Handler) -> None:
    told = Told()
    shutdown = ShutdownSignal(told)
    shutdown.listen()
    front = Handler(inner=signal.getsignal(SIGNAL))
    signal.signal(SIGNAL, front)
    shutdown.listen()  # in front of him, who hands on to our first handler: nobody may go round in circles
    signal.raise_signal(SIGNAL)
    assert await told.heard()
    assert (front.heard, server.heard) == (1, 1)
    shutdown.close()
    assert signal.getsignal(SIGNAL) is front
    signal.raise_signal(SIGNAL)
    assert (front.heard, server.heard) == (2, 2)


async def test_two_queues_in_one_process(server: Handler) -> None:
    ears = [Told(), Told()]
    one, other = (ShutdownSignal(told) for told in ears)
    one.listen()
    other.listen()
    signal.raise_signal(SIGNAL)
    for told in ears:
        assert await told.heard()
    one.close()  # in the wrong order
    other.close()
    signal.raise_signal(SIGNAL)
    assert server.heard == 2


async def test_outside_the_main_thread_nothing_is_touched(server: Handler) -> None:
    def elsewhere() -> None:
        async def listen() -> None:
            shutdown = ShutdownSignal(Told())
            shutdown.listen()
            shutdown.close()

        asyncio.run(listen())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert signal.getsignal(SIGNAL) is server


def test_a_signal_after_the_end_of_the_loop_reaches_the_server(server: Handler) -> None:
    async def listen() -> None:
        ShutdownSignal(Told()).listen()

    asyncio.run(listen())
    signal.raise_signal(SIGNAL)
    assert server.heard == 1


async def test_interrupts_are_heard_from_when_it_is_asked_for(server: Handler) -> None:
    told, interrupted = Told(), Told()
    signal.signal(signal.SIGINT, server)
    shutdown = ShutdownSignal(told)
    shutdown.listen()
    signal.raise_signal(signal.SIGINT)
    assert await told.heard()
    assert shutdown.listen_for_interrupt(interrupted)
    signal.raise_signal(SIGNAL)
    await asyncio.sleep(0)
    assert interrupted.times == 0, "the server's own signal is not the operator's second thought"
    signal.raise_signal(signal.SIGINT)
    assert await interrupted.heard()
    assert server.heard == 3
    shutdown.close()
    assert signal.getsignal(signal.SIGINT) is server


async def test_an_interrupt_that_nobody_handles_is_not_promised(server: Handler) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shutdown = ShutdownSignal(Told())
    assert not shutdown.listen_for_interrupt(Told())
    shutdown.close()
