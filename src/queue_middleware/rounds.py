"""The loop of those who do what falls due: from claim to claim, several at once, over outages, to an end in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

from .backoff import exponential
from .errors import UnknownRequest
from .events import Announce, Trouble

GRACE = 3.0
"""Seconds that work under way gets when the loop stops."""
SHORTEST_WAIT = 0.01
LOOK_AGAIN = 5.0
"""Seconds after which what is waited for until a time of the wall clock is looked at again. That clock may be set meanwhile; to
look is one read, which finds nothing."""
_LONGEST_PAUSE = 30.0
"""Seconds between two tries in an outage."""

T = TypeVar("T")


class Rounds:
    """Claims until it is told to stop. `run` in a task of its own; `stop` from the same event loop, repeatable.

    `claim` begins what is due, with `begin`, and gives the seconds until more is; None where nothing says when, or there is no
    room. It is called again then, when `wake` was called, and after `LOOK_AGAIN` in any case. `where` is the name under which
    outages are announced. Work that has not ended `grace` seconds after `stop` is cancelled.
    """

    def __init__(
        self, where: str, claim: Callable[[], Awaitable[float | None]], announce: Announce, *, grace: float = GRACE
    ) -> None:
        self._where = where
        self._claim = claim
        self._announce = announce
        self._grace = grace
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._running: dict[asyncio.Task[None], int] = {}

    async def run(self) -> None:
        """Work until `stop`; ends when what is under way has ended or was given up."""
        async with asyncio.TaskGroup() as self._group:
            trouble = Trouble(self._where, self._announce)
            while not self._stopping.is_set():
                # Before looking: what becomes due while we look must not be missed.
                self._wake.clear()
                try:
                    due = await self._claim()
                except Exception as error:
                    await self._outage(trouble, error)
                else:
                    trouble.over()
                    await rest(self._wake, LOOK_AGAIN if due is None else min(due, LOOK_AGAIN))
            await self._drain()

    def stop(self) -> None:
        """Claim nothing more; `run` ends soon."""
        self._stopping.set()
        self._wake.set()

    def hurry(self) -> None:
        """After `stop`, also a later one: cancel what is under way instead of waiting for it. Repeatable."""
        self._grace = 0.0
        if self._stopping.is_set():
            for task in list(self._running):
                task.cancel()

    def wake(self) -> None:
        """Claim again: something may be due, or a place has become free."""
        self._wake.set()

    def begin(self, work: Coroutine[None, None, None], name: str, token: int, ended: Callable[[], None]) -> None:
        """Do this, which must not raise, in a task of its own. `ended` is called at its end, were it before its first step."""
        task = self._group.create_task(work, name=name)
        self._running[task] = token

        def forget(task: asyncio.Task[None]) -> None:
            self._running.pop(task, None)
            ended()

        task.add_done_callback(forget)

    def tokens(self) -> list[int]:
        """Of what is under way; may be called from another thread."""
        return list(self._running.copy().values())

    async def insist(self, verb: Callable[[], Awaitable[T]]) -> T | None:
        """Tell the store, over outages too; None where it keeps nothing of this any more, or does not answer until `stop`."""
        trouble = Trouble(self._where, self._announce)
        while True:
            try:
                result = await verb()
            except UnknownRequest:
                result = None  # it had ended, and retention has taken it
            except Exception as error:
                if self._stopping.is_set():
                    return None
                await self._outage(trouble, error)
                continue
            trouble.over()
            return result

    async def _outage(self, trouble: Trouble, error: Exception) -> None:
        pause = exponential(trouble.failures + 1, longest=_LONGEST_PAUSE)
        trouble.met(error, pause)
        await rest(self._stopping, pause)

    async def _drain(self) -> None:
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._grace)
            for task in late:
                task.cancel()


async def rest(until: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await until.wait()
    except TimeoutError:
        pass
