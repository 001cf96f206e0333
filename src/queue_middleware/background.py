"""Work beside requests: threads of its own, and the claim loop that the webhook dispatcher and the provider poller share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from threading import Thread
from typing import Literal, Protocol, TypeVar

from .backoff import exponential
from .errors import QueueError, UnknownRequest

T = TypeVar("T")

INLINE_BYTES = 16 * 1024
"""Bytes of JSON that are parsed in the event loop: less than a millisecond."""
DRAIN_TIMEOUT = 3.0
"""Seconds that running work gets when a claim loop stops."""
SHORTEST_WAIT = 0.01
LONGEST_WAIT = 5.0
"""Longest wait in seconds for something due at a wall-clock time. The clock may be set meanwhile; a check without work is one
read."""
_LONGEST_PAUSE = 30.0
"""Seconds between two attempts in an outage."""
OUTAGE_PAUSE = 1.0
"""Seconds between two attempts of the worker to reach a database that does not respond."""


# --- threads


async def run_in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Call `work` in a daemon thread of its own and wait for it. A cancelled caller stops waiting; the thread finishes.

    `asyncio.to_thread` shares a few threads with all handlers of the application. Where those are slow, the queue's own work
    would wait behind them: deadlines would be missed, nothing would be rescued, and the process could not shut down.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work(*arguments))
        except BaseException as error:
            outcome.set_exception(error)

    outcome.set_running_or_notify_cancel()
    Thread(target=run, name="queue-run-in-thread", daemon=True).start()
    return await asyncio.wrap_future(outcome)


class ThreadLimiter:
    """Runs work on untrusted input in threads: at most `limit` at once, the rest waits.

    A thread does not help against C code that never releases the interpreter lock: such work has to bound itself.
    """

    def __init__(self, limit: int = 2) -> None:
        self._limit = limit
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, size: int, work: Callable[..., T], *arguments: object) -> T:
        """Call `work` in a thread; directly where `size`, in bytes, is so small that a thread would cost more."""
        if size <= INLINE_BYTES:
            return work(*arguments)
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # A semaphore belongs to one event loop, and a queue may be started again in another one.
            self._loop, self._free = loop, asyncio.Semaphore(self._limit)
        async with self._free:
            return await run_in_thread(work, *arguments)


# --- waiting and retrying


class ErrorReporter(Protocol):
    """Reports consecutive errors of one source, and the success that ends them; see `events.ErrorStreak`."""

    @property
    def failures(self) -> int:
        """Consecutive errors so far."""

    def met(self, error: BaseException, pause: float) -> None:
        """Report an error after which the work is retried in `pause` seconds."""

    def over(self) -> None:
        """Report a success."""


async def wait_for(until: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await until.wait()
    except TimeoutError:
        pass


async def retry_on_outage(
    call: Callable[[], Awaitable[T]], error: QueueError | None, reporter: ErrorReporter, is_ending: Callable[[], bool]
) -> T | Literal[False]:
    """Call until the store accepts it: an outage must not lose finished work. Returns False once `is_ending` returns true.

    `error` is the error of an attempt that the caller has made already.
    """
    while True:
        if error is not None:
            if is_ending():
                return False
            reporter.met(error, OUTAGE_PAUSE)
            await asyncio.sleep(OUTAGE_PAUSE)
        try:
            result = await call()
        except QueueError as again:
            error = again
        else:
            reporter.over()
            return result


class ClaimLoop:
    """Polling loop: claims due work, runs it concurrently, survives store outages, drains on shutdown.

    `claim` starts what is due with `spawn`, and returns the seconds until more is due; None where that is unknown, or nothing
    more fits. It is called again after that time, after `wake`, and after `LONGEST_WAIT` at the latest. `reporter` makes the
    reporter of a series of calls. Work that has not ended `grace` seconds after `stop` is cancelled.
    Call `run` in a task, and the other methods in the same event loop.
    """

    def __init__(
        self,
        claim: Callable[[], Awaitable[float | None]],
        reporter: Callable[[], ErrorReporter],
        *,
        grace: float = DRAIN_TIMEOUT,
    ) -> None:
        self._claim = claim
        self._reporter = reporter
        self._grace = grace
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._running: dict[asyncio.Task[None], int] = {}
        self._is_running = False

    async def run(self) -> None:
        """Work until `stop`; return when running work has ended or was cancelled."""
        async with asyncio.TaskGroup() as self._group:
            self._is_running = True
            try:
                await self._run()
            finally:
                self._is_running = False  # before the group ends, because it refuses new tasks from then on

    async def _run(self) -> None:
        reporter = self._reporter()
        while not self._stopping.is_set():
            # Cleared before the claim: what becomes due during the claim must not be missed.
            self._wake.clear()
            try:
                due = await self._claim()
            except Exception as error:
                await self._pause(reporter, error)
            else:
                reporter.over()
                await wait_for(self._wake, LONGEST_WAIT if due is None else min(due, LONGEST_WAIT))
        await self._drain()

    @property
    def is_working(self) -> bool:
        """Whether `spawn` may be called: from the start of `run` until `stop`."""
        return self._is_running and not self._stopping.is_set()

    def stop(self) -> None:
        """Claim nothing more; `run` ends soon. Idempotent."""
        self._stopping.set()
        self._wake.set()

    def hurry(self) -> None:
        """Once stopped, cancel running work instead of waiting for it. May be called before `stop`. Idempotent."""
        self._grace = 0.0
        if self._stopping.is_set():
            for task in list(self._running):
                task.cancel()

    def wake(self) -> None:
        """Claim again: something may be due, or a slot has become free."""
        self._wake.set()

    def spawn(self, work: Coroutine[None, None, None], name: str, token: int, ended: Callable[[], None]) -> None:
        """Run `work`, which must not raise, as a task. `ended` is called at its end, even if cancelled before it began."""
        task = self._group.create_task(work, name=name)
        self._running[task] = token

        def forget(task: asyncio.Task[None]) -> None:
            self._running.pop(task, None)
            ended()

        task.add_done_callback(forget)

    def tokens(self) -> list[int]:
        """The tokens of running work. May be called from another thread."""
        return list(self._running.copy().values())

    async def retry_until_stop(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Call until it succeeds. None after an error later than `stop`, or if the store has deleted the request."""
        reporter = self._reporter()
        while True:
            try:
                result = await call()
            except UnknownRequest:
                result = None  # the request had ended, and retention has deleted it
            except Exception as error:
                if self._stopping.is_set():
                    return None
                await self._pause(reporter, error)
                continue
            reporter.over()
            return result

    async def _pause(self, reporter: ErrorReporter, error: Exception) -> None:
        seconds = exponential(reporter.failures + 1, longest=_LONGEST_PAUSE)
        reporter.met(error, seconds)
        await wait_for(self._stopping, seconds)

    async def _drain(self) -> None:
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._grace)
            for task in late:
                task.cancel()
