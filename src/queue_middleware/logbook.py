"""What one attempt says, on its way to the store: bounded, in order, and a few writes a second however much it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from .errors import StoreBusy, Unavailable
from .events import Announce, Outage, Trouble
from .logline import dropped_line, now, progress_line, size_of
from .models import Claim, LogLine, Progress
from .store import Store

T = TypeVar("T")

GATHER = 0.1
"""Seconds for which lines are gathered before they are written."""
LINES = 10_000
"""Lines of one attempt."""
_PAUSE = 1.0
"""Seconds between two tries to reach a database that does not answer."""


@dataclass(slots=True)
class LogBufferContext:
    """What all logbooks of a process share. Made in the event loop's thread."""

    store: Store
    emit: Announce
    loop: asyncio.AbstractEventLoop
    size: int
    """Bytes of one logbook."""
    thread: int = field(default_factory=threading.get_ident)
    process: int = field(default_factory=os.getpid)
    """In a process that was forked from it, a thread that is not there may hold the locks of shelf and logbooks for ever."""
    opening: threading.RLock = field(default_factory=threading.RLock)
    """Two threads of one attempt may want its logbook at once."""


class LogBuffer:
    """`write` and `report` may be called from any thread and return at once; all else belongs to the event loop.

    At most `LINES` lines and `size` bytes are taken from an attempt, whether the database answers or not; the rest is counted.
    """

    # What most attempts never change lies in the class.
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
    _trouble: Trouble | None = None

    def __init__(self, claim: Claim, context: LogBufferContext) -> None:
        self._claim = claim
        self._context = context
        self._room = context.size
        self._places = LINES if context.size else 0
        self._lines: list[LogLine] = []
        self._lock = threading.RLock()  # a `__del__` may log at any moment, also while this thread writes

    # --- from any thread

    def redact(self, secret: str | None) -> None:
        """Of a text that is a secret asterisks are written, wherever it stands."""
        self._secret = secret

    def _redacted(self, text: str) -> str:
        return text if self._secret is None else text.replace(self._secret, "*" * len(self._secret))

    def write(self, line: LogLine) -> None:
        """Take a line, unless there are too many. Those of a repeated attempt say so."""
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
        """Take a report. Of those between two writes the last is kept, and becomes a line if it says something new."""
        if progress.stage is not None:
            progress = progress.replace(stage=self._redacted(progress.stage))
        with self._lock:
            if self._closed:
                return
            self._progress = progress
            self._report = len(self._lines), progress_line(now(), progress)
            first, self._expected = not self._expected, True
        if first:
            self._wake()

    def _admit(self, line: LogLine) -> bool:
        size = size_of(line)
        if self._dropped or not self._places or size > self._room:
            self._dropped += 1
            return False
        self._places -= 1
        self._room -= size
        return True

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed under a thread that goes on
            if threading.get_ident() == self._context.thread:
                self._rest(GATHER)
            else:
                self._context.loop.call_soon_threadsafe(self._rest, GATHER)

    # --- writing every now and then

    def _rest(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed:
            self._timer = self._context.loop.call_later(seconds, self._write)

    def _write(self) -> None:
        self._timer = None
        if self._writing is not None:
            self._rest(GATHER)
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
                told = self._context.store.log(self._claim, lines, progress)
            except Exception as error:  # lines that cannot even be spelled must not cost the job its end
                self._context.emit(Outage("logs", error, 0))
                return
            self._written = lines, progress
            self._writing = asyncio.ensure_future(told)
            self._writing.add_done_callback(self._look)

    def _look(self, writing: asyncio.Future[bool]) -> None:
        """See what became of a write, once."""
        if self._writing is not writing or writing.cancelled():
            return
        (lines, progress), self._written, self._writing = self._written, ((), None), None
        error = writing.exception()
        if isinstance(error, Unavailable):
            self._trouble = self._trouble or Trouble("logs", self._context.emit)
            self._trouble.met(error, _PAUSE)
            self._put_back(lines, progress)
        elif isinstance(error, Exception):  # these lines would fail again
            self._context.emit(Outage("logs", error, 0))
        elif not writing.result():
            self.discard()
        elif self._trouble is not None:
            self._trouble.over()

    def _put_back(self, lines: Sequence[LogLine], progress: Progress | None) -> None:
        with self._lock:
            self._lines[:0] = lines
            self._progress = self._progress or progress
            if self._report is not None:
                self._report = self._report[0] + len(lines), self._report[1]
            self._expected = True
        self._rest(_PAUSE)

    # --- the end

    def before(self, end: Callable[..., Awaitable[T]], *, wait: bool = False) -> Callable[..., Awaitable[T]]:
        """`end`, a verb of the store, with the last lines told to the store in front of it; with `wait`, and stored.

        Like `end` it may be said again when it raises; that is the way of lines that could not be stored.
        """

        async def lines_and_end(*arguments: object) -> T:
            await self._hand_over()
            if wait:
                await self._all_stored()
            result = await end(*arguments)
            await self._all_stored()
            return result

        return lines_and_end

    async def _hand_over(self) -> None:
        self._close()
        await self._quiet()  # in order: what is on its way may have to be told again
        # The progress too: a request that now waits for somebody outside shows it until he calls.
        self._submit(*self._take())

    async def _all_stored(self) -> None:
        await self._quiet()
        if self._lines:
            raise StoreBusy("the last log lines could not be stored", 5)

    async def _quiet(self) -> None:
        writing = self._writing
        if writing is not None:
            if not writing.done():
                await asyncio.wait((writing,))  # which does not end it, should our caller be cancelled
            self._look(writing)

    def _close(self) -> None:
        with self._lock:
            if not self._closed and self._dropped and self._context.size:
                self._lines.append(dropped_line(now(), self._dropped, LINES, self._context.size))
            self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def discard(self) -> None:
        """Forget what is not stored, and take nothing more: the attempt does not count any longer."""
        self._close()
        self._take()
