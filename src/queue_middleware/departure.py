"""Hears that this process is asked to end when its server hears it, and not when the server is done waiting for open answers.

Every server waits for answers that are on their way before it tells the application to close, and some wait for ever; a stream
that is open as long as a request takes has to end before. The only sign of it is the signal, so that is where we listen too; in
the worker processes of hypercorn, which get none, it is an event.
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


class Departure:
    """`told` is called in the event loop, perhaps twice. Nothing is touched before `listen`, nor outside the main thread."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._ours: dict[signal.Signals, tuple[_Handler, _Handler]] = {}
        """Our handler, and the one that was there."""
        self._waiting: asyncio.Task[None] | None = None
        self._interrupted: Callable[[], None] | None = None

    def listen(self, send: object = None) -> None:
        """Listen to the signals that somebody has a handler for, and hand them on to it. `send` is that of a connection.

        Repeatable, and to be repeated: a server that is started later puts its handlers in the place of ours. A signal without
        a handler is left alone: it ends the process at once, or nobody wants it.
        """
        if self._waiting is None and (wait := _event_of_hypercorn(send)) is not None:
            self._waiting = self._loop.create_task(self._wait_for(wait), name="queue-departure")
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler) and (number not in self._ours or handler is not self._ours[number][0]):
                self._ours[number] = (self._in_front_of(handler), handler)
                signal.signal(number, self._ours[number][0])

    def listen_for_interrupt(self, told: Callable[[], None]) -> bool:
        """Call `told` at each SIGINT from now on; whether they are heard."""
        self._interrupted = told
        self.listen()
        return signal.SIGINT in self._ours

    async def _wait_for(self, wait: Callable[[], Awaitable[None]]) -> None:
        await wait()
        self._told()

    def _in_front_of(self, handler: _Handler) -> _Handler:
        """A new one each time: one that was covered by somebody who hands on to it must not hand on to him."""

        def hear(number: int, frame: FrameType | None) -> Any:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._told)
                if number == signal.SIGINT and self._interrupted is not None:
                    self._loop.call_soon_threadsafe(self._interrupted)
            return handler(number, frame)

        return hear

    def close(self) -> None:
        """Put back what was there, where nobody has come after us. Repeatable."""
        if self._waiting is not None:
            self._waiting.cancel()
        if threading.current_thread() is not threading.main_thread():
            return
        for number, (ours, theirs) in self._ours.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, theirs)
        self._ours.clear()


def _event_of_hypercorn(send: object) -> Callable[[], Awaitable[None]] | None:
    """What a connection of hypercorn looks at; None with other servers, and behind middlewares that have their own `send`."""
    context = getattr(getattr(send, "__self__", None), "context", None)
    return getattr(getattr(context, "terminated", None), "wait", None)
