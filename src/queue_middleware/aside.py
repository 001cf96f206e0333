"""The queue's own blocking work, in threads that the application cannot keep from it.

`asyncio.to_thread` shares a few threads with all handlers. Where those are slow, whoever waits behind them waits for as long as
they take: deadlines would not be kept, nothing would be rescued, and the end of the process would not come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

SMALL = 16 * 1024
"""Bytes of JSON that are read in the event loop: less than a millisecond."""


async def aside(work: Callable[..., T], *arguments: object) -> T:
    """Call it in a thread of its own and wait. The thread does not keep the process; who is cancelled waits no longer."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work(*arguments))
        except BaseException as error:
            outcome.set_exception(error)

    outcome.set_running_or_notify_cancel()
    Thread(target=run, name="queue-aside", daemon=True).start()
    return await asyncio.wrap_future(outcome)


class Lane:
    """`aside` for work that strangers make: at most `limit` at once, and the rest waits its turn.

    Where it is in C and never lets go of the interpreter, a thread alone would not help: such work has to be cut short itself.
    """

    def __init__(self, limit: int = 2) -> None:
        self._places = asyncio.Semaphore(limit)

    async def run(self, size: int, work: Callable[..., T], *arguments: object) -> T:
        """Call it at once where `size`, in bytes, is small: a thread costs more than that."""
        if size <= SMALL:
            return work(*arguments)
        async with self._places:
            return await aside(work, *arguments)
