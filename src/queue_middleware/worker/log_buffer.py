"""Buffers the log lines and progress of an attempt and stores them: bounded, in order, with a few writes a second."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from queue_middleware.errors import StoreBusy, Unavailable
from queue_middleware.events import Emit, ServiceError
from queue_middleware.events.error_streak import ErrorStreak
from queue_middleware.jobs.log_lines import LogLine, dropped_line, line_size, progress_line
from queue_middleware.jobs.models import Claim, Progress
from queue_middleware.jobs.store import JobStore

T = TypeVar("T")

FLUSH_INTERVAL = 0.1
"""Seconds for which lines are gathered before they are written."""
MAX_LINES = 10_000
"""Lines that are kept of one attempt."""
_PAUSE = 1.0
"""Seconds between two tries to reach a store that is not available."""


@dataclass(slots=True)
class LogBufferContext:
    """What all log buffers of a process share. Created in the thread of the event loop."""

    store: JobStore
    emit: Emit
    loop: asyncio.AbstractEventLoop
    max_bytes: int
    """Bytes that are kept of one attempt."""
    thread: int = field(default_factory=threading.get_ident)
    process: int = field(default_factory=os.getpid)
    """In a forked process, the locks here and in the buffers may be held forever by a thread that does not exist there."""
    creation_lock: threading.RLock = field(default_factory=threading.RLock)
    """Held while a log buffer is created: two threads of one attempt may need it at once."""
    clock: Callable[[], float] = time.time
    """Unix time in seconds."""

    def now(self) -> int:
        """The time of a log line that is made now."""
        return int(self.clock() * 1_000_000)


class LogBuffer:
    """`write` and `report` may be called from any thread and return at once; call the other methods in the event loop only.

    At most `MAX_LINES` lines and `LogBufferContext.max_bytes` bytes are kept of an attempt, also during an outage of the store;
    the rest is counted.
    """

    # Defaults that most attempts never change are in the class.
    _dropped = 0
    _progress: Progress | None = None
    _report: tuple[int, LogLine] | None = None
    _reported = ""
    _expected = False
    _closed = False
    _timer: asyncio.TimerHandle | None = None
    _writing: asyncio.Future[bool] | None = None
    _written: tuple[Sequence[LogLine], Progress | None] = (), None
    _secret: str | None = None
    _errors: ErrorStreak | None = None
    on_progress: Callable[[Progress], None] | None = None
    """Called with each progress report, in the thread that reports it."""

    def __init__(self, claim: Claim, context: LogBufferContext) -> None:
        self._claim = claim
        self._context = context
        self._bytes_left = context.max_bytes
        self._lines_left = MAX_LINES if context.max_bytes else 0
        self._lines: list[LogLine] = []
        self._lock = threading.RLock()  # a `__del__` may log at any moment, also while this thread writes

    # --- from any thread

    def redact(self, secret: str | None) -> None:
        """Replace this secret by asterisks in all lines from now on."""
        self._secret = secret

    def _redacted(self, text: str) -> str:
        return text if self._secret is None else text.replace(self._secret, "*" * len(self._secret))

    def now(self) -> int:
        """The time for a line that is made now."""
        return self._context.now()

    def write(self, line: LogLine) -> None:
        """Take a line, unless there are too many. Lines of a repeated attempt get a label with its number."""
        if self._secret is not None:
            labels = {name: self._redacted(text) for name, text in line.labels.items()}
            line = line.replace(message=self._redacted(line.message), labels=labels)
        if self._claim.attempt > 1:
            line = line.replace(labels={**line.labels, "attempt": str(self._claim.attempt)})
        with self._lock:
            if self._closed or not self._admit(line):
                return
            self._lines.append(line)
            first, self._expected = not self._expected, True
        if first:
            self._wake()

    def report(self, progress: Progress) -> None:
        """Take a progress report. The last one between two writes is kept, and becomes a line if its text is new."""
        if progress.stage is not None:
            progress = progress.replace(stage=self._redacted(progress.stage))
        with self._lock:
            if self._closed:
                return
            self._progress = progress
            self._report = len(self._lines), progress_line(self.now(), progress)
            first, self._expected = not self._expected, True
        if self.on_progress is not None:
            self.on_progress(progress)
        if first:
            self._wake()

    def _admit(self, line: LogLine) -> bool:
        size = line_size(line)
        if self._dropped or not self._lines_left or size > self._bytes_left:
            self._dropped += 1
            return False
        self._lines_left -= 1
        self._bytes_left -= size
        return True

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed under a thread that goes on
            if threading.get_ident() == self._context.thread:
                self._schedule(FLUSH_INTERVAL)
            else:
                self._context.loop.call_soon_threadsafe(self._schedule, FLUSH_INTERVAL)

    # --- periodic writes

    def _schedule(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed:
            self._timer = self._context.loop.call_later(seconds, self._write)

    def _write(self) -> None:
        self._timer = None
        if self._writing is not None:
            self._schedule(FLUSH_INTERVAL)
        elif not self._closed:
            self._submit(*self._take())

    def _take(self) -> tuple[list[LogLine], Progress | None]:
        with self._lock:
            self._expected = False
            if self._report is not None:
                place, line = self._report
                if line.message != self._reported and self._admit(line):
                    self._lines.insert(place, line)
                    self._reported = line.message
            lines, progress = self._lines, self._progress
            self._lines, self._progress, self._report = [], None, None
        return lines, progress

    def _submit(self, lines: Sequence[LogLine], progress: Progress | None) -> None:
        if lines or progress is not None:
            try:
                stored = self._context.store.log(self._claim, lines, progress)
            except Exception as error:  # lines that cannot be serialized must not prevent the job from ending
                self._context.emit(ServiceError("logs", error, 0))
                return
            self._written = lines, progress
            self._writing = asyncio.ensure_future(stored)
            self._writing.add_done_callback(self._on_written)

    def _on_written(self, writing: asyncio.Future[bool]) -> None:
        """Handle the result of a write, once."""
        if self._writing is not writing or writing.cancelled():
            return
        (lines, progress), self._written, self._writing = self._written, ((), None), None
        error = writing.exception()
        if isinstance(error, Unavailable):
            self._errors = self._errors or ErrorStreak("logs", self._context.emit)
            self._errors.met(error, _PAUSE)
            self._put_back(lines, progress)
        elif isinstance(error, Exception):  # these lines would fail again
            self._context.emit(ServiceError("logs", error, 0))
        elif not writing.result():
            self.discard()
        elif self._errors is not None:
            self._errors.over()

    def _put_back(self, lines: Sequence[LogLine], progress: Progress | None) -> None:
        with self._lock:
            self._lines[:0] = lines
            self._progress = self._progress or progress
            if self._report is not None:
                self._report = self._report[0] + len(lines), self._report[1]
            self._expected = True
        self._schedule(_PAUSE)

    # --- the end

    def before(self, end: Callable[..., Awaitable[T]], *, wait: bool = False) -> Callable[..., Awaitable[T]]:
        """`end`, a method of the store, preceded by the last lines; with `wait` it is called only when they are stored.

        What is returned may be called again when it raises, as `end` may; so lines that could not be stored are retried.
        """

        async def lines_and_end(*arguments: object) -> T:
            await self._submit_rest()
            if wait:
                await self._all_stored()
            result = await end(*arguments)
            await self._all_stored()
            return result

        return lines_and_end

    async def _submit_rest(self) -> None:
        self._close()
        await self._wait_written()  # in order: what is being written may have to be written again
        # The progress too: a request that now waits for an external service shows it meanwhile.
        self._submit(*self._take())

    async def _all_stored(self) -> None:
        await self._wait_written()
        if self._lines:
            raise StoreBusy("the last log lines could not be stored", 5)

    async def _wait_written(self) -> None:
        writing = self._writing
        if writing is not None:
            if not writing.done():
                await asyncio.wait((writing,))  # does not cancel the write when the caller is cancelled
            self._on_written(writing)

    def _close(self) -> None:
        with self._lock:
            if not self._closed and self._dropped and self._context.max_bytes:
                self._lines.append(dropped_line(self.now(), self._dropped, MAX_LINES, self._context.max_bytes))
            self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def discard(self) -> None:
        """Drop what is not stored, and take nothing more: the claim is no longer held."""
        self._close()
        self._take()
