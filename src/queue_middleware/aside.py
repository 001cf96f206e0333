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
