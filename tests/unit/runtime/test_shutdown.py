"""The signal that ends a process: handled beside the server's and other handlers, and restored afterwards."""

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
    """A signal handler of another library, which counts its calls and passes the signal on to `inner`."""

    def __init__(self, inner: Any = None) -> None:
        self.calls = 0
        self._inner = inner

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.calls += 1
        if self._inner is not None:
            self._inner(number, frame)


class Callback:
    def __init__(self) -> None:
        self.times = 0
        self.event = asyncio.Event()

    def __call__(self) -> None:
        self.times += 1
        self.event.set()

    async def called(self) -> bool:
        async with asyncio.timeout(5):
            await self.event.wait()
        return True


@pytest.fixture
def server() -> Iterator[Handler]:
    """A server with its own signal handler; the previous one is restored after the test."""
    handler = Handler()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)}
    signal.signal(SIGNAL, handler)
    yield handler
    for number, old in before.items():
        signal.signal(number, old)


async def test_the_server_and_the_queue_both_receive_the_signal(server: Handler) -> None:
    callback = Callback()
    shutdown = ShutdownSignal(callback)
    signal.raise_signal(SIGNAL)
    assert (server.calls, callback.times) == (1, 0)
    shutdown.listen()
    shutdown.listen()
    signal.raise_signal(SIGNAL)
    assert server.calls == 2
    assert await callback.called()
    shutdown.close()
    shutdown.close()
    assert signal.getsignal(SIGNAL) is server


async def test_handlers_of_the_event_loop_are_supported(server: Handler) -> None:
    """gunicorn's ASGI worker and hypercorn set their handlers with `loop.add_signal_handler`."""
    loop = asyncio.get_running_loop()
    theirs = asyncio.Event()
    loop.add_signal_handler(SIGNAL, theirs.set)
    callback = Callback()
    shutdown = ShutdownSignal(callback)
    shutdown.listen()
    signal.raise_signal(SIGNAL)
    assert await callback.called()
    async with asyncio.timeout(5):
        await theirs.wait()
    shutdown.close()
    theirs.clear()
    signal.raise_signal(SIGNAL)
    async with asyncio.timeout(5):
        await theirs.wait()
    loop.remove_signal_handler(SIGNAL)


async def test_hypercorns_worker_processes_are_notified_by_an_event(server: Handler) -> None:
    class Context:
        terminated = asyncio.Event()

    class HTTPStream:
        context = Context

        async def app_send(self) -> None:
            raise NotImplementedError

    callback = Callback()
    shutdown = ShutdownSignal(callback)
    shutdown.listen(HTTPStream().app_send)
    shutdown.listen(HTTPStream().app_send)
    await asyncio.sleep(0)
    assert callback.times == 0
    Context.terminated.set()
    assert await callback.called()
    shutdown.close()


@pytest.mark.parametrize("disposition", [signal.SIG_DFL, signal.SIG_IGN])
async def test_a_signal_without_a_handler_is_not_changed(server: Handler, disposition: Any) -> None:
    signal.signal(signal.SIGQUIT, disposition)
    shutdown = ShutdownSignal(Callback())
    shutdown.listen()
    assert signal.getsignal(signal.SIGQUIT) is disposition
    shutdown.close()


async def test_a_server_that_starts_later_is_supported(server: Handler) -> None:
    callback = Callback()
    shutdown = ShutdownSignal(callback)
    shutdown.listen()
    later = Handler()
    signal.signal(SIGNAL, later)
    shutdown.listen()
    signal.raise_signal(SIGNAL)
    assert await callback.called()
    assert (later.calls, server.calls) == (1, 0)
    shutdown.close()
    assert signal.getsignal(SIGNAL) is later


async def test_a_later_handler_stays_in_front(server: Handler) -> None:
    callback = Callback()
    shutdown = ShutdownSignal(callback)
    shutdown.listen()
    front = Handler(inner=signal.getsignal(SIGNAL))
    signal.signal(SIGNAL, front)
    shutdown.listen()  # in front of a handler that calls the first one: calls must not recurse endlessly
    signal.raise_signal(SIGNAL)
    assert await callback.called()
    assert (front.calls, server.calls) == (1, 1)
    shutdown.close()
    assert signal.getsignal(SIGNAL) is front
    signal.raise_signal(SIGNAL)
    assert (front.calls, server.calls) == (2, 2)


async def test_two_queues_in_one_process(server: Handler) -> None:
    callbacks = [Callback(), Callback()]
    one, other = (ShutdownSignal(callback) for callback in callbacks)
    one.listen()
    other.listen()
    signal.raise_signal(SIGNAL)
    for callback in callbacks:
        assert await callback.called()
    one.close()  # in the wrong order
    other.close()
    signal.raise_signal(SIGNAL)
    assert server.calls == 2


async def test_outside_the_main_thread_nothing_is_changed(server: Handler) -> None:
    def elsewhere() -> None:
        async def listen() -> None:
            shutdown = ShutdownSignal(Callback())
            shutdown.listen()
            shutdown.close()

        asyncio.run(listen())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert signal.getsignal(SIGNAL) is server


def test_a_signal_after_the_end_of_the_loop_reaches_the_server(server: Handler) -> None:
    async def listen() -> None:
        ShutdownSignal(Callback()).listen()

    asyncio.run(listen())
    signal.raise_signal(SIGNAL)
    assert server.calls == 1


async def test_interrupts_are_handled_after_listen_for_interrupt(server: Handler) -> None:
    callback, interrupted = Callback(), Callback()
    signal.signal(signal.SIGINT, server)
    shutdown = ShutdownSignal(callback)
    shutdown.listen()
    signal.raise_signal(signal.SIGINT)
    assert await callback.called()
    assert shutdown.listen_for_interrupt(interrupted)
    signal.raise_signal(SIGNAL)
    await asyncio.sleep(0)
    assert interrupted.times == 0, "the server's own signal is not a second interrupt by the operator"
    signal.raise_signal(signal.SIGINT)
    assert await interrupted.called()
    assert server.calls == 3
    shutdown.close()
    assert signal.getsignal(signal.SIGINT) is server


async def test_an_interrupt_without_a_handler_is_not_announced(server: Handler) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shutdown = ShutdownSignal(Callback())
    assert not shutdown.listen_for_interrupt(Callback())
    shutdown.close()
