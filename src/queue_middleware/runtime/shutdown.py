"""Detects a shutdown signal as soon as the server receives it, before the server waits for open connections.

Servers wait for open responses before they send the lifespan's shutdown event, some of them without limit. A status stream,
which stays open for as long as a request takes, has to end before that. The only early sign is the signal itself; the worker
processes of hypercorn receive none and set an event instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

_Handler = Callable[[int, FrameType | None], Any]


class ShutdownSignal:
    """Calls `on_shutdown` in the event loop, possibly twice. Changes nothing before `listen`, nor outside the main thread."""

    def __init__(self, on_shutdown: Callable[[], None]) -> None:
        self._on_shutdown = on_shutdown
        self._loop = asyncio.get_running_loop()
        self._installed: dict[signal.Signals, tuple[_Handler, _Handler]] = {}
        """Our handler, and the one that it replaced and calls."""
        self._hypercorn: asyncio.Task[None] | None = None
        self._on_interrupt: Callable[[], None] | None = None

    def listen(self, send: object = None) -> None:
        """Put a handler in front of each signal handler that is installed. `send` is the `send` of a connection.

        Idempotent, and has to be repeated: a server that starts later replaces our handlers with its own. A signal without a
        Python handler is left alone: it ends the process at once, or is ignored.
        """
        if self._hypercorn is None and (wait := _hypercorn_event(send)) is not None:
            self._hypercorn = self._loop.create_task(self._call_after(wait), name="queue-shutdown-signal")
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler) and (number not in self._installed or handler is not self._installed[number][0]):
                self._installed[number] = (self._in_front_of(handler), handler)
                signal.signal(number, self._installed[number][0])

    def listen_for_interrupt(self, on_interrupt: Callable[[], None]) -> bool:
        """Call `on_interrupt` at each SIGINT from now on. Returns whether SIGINT can be detected."""
        self._on_interrupt = on_interrupt
        self.listen()
        return signal.SIGINT in self._installed

    async def _call_after(self, wait: Callable[[], Awaitable[None]]) -> None:
        await wait()
        self._on_shutdown()

    def _in_front_of(self, handler: _Handler) -> _Handler:
        """A new function each time: if another library wraps an earlier one, that one must not call the wrapper again."""

        def handle(number: int, frame: FrameType | None) -> Any:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._on_shutdown)
                if number == signal.SIGINT and self._on_interrupt is not None:
                    self._loop.call_soon_threadsafe(self._on_interrupt)
            return handler(number, frame)

        return handle

    def close(self) -> None:
        """Restore the previous handlers, except where ours have been replaced since. Idempotent."""
        if self._hypercorn is not None:
            self._hypercorn.cancel()
        if threading.current_thread() is not threading.main_thread():
            return
        for number, (ours, previous) in self._installed.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, previous)
        self._installed.clear()


def _hypercorn_event(send: object) -> Callable[[], Awaitable[None]] | None:
    """The shutdown event of hypercorn's context; None for other servers, and behind middlewares that replace `send`."""
    context = getattr(getattr(send, "__self__", None), "context", None)
    return getattr(getattr(context, "terminated", None), "wait", None)
