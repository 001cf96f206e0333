"""An attempt in a queue that has instrumentations."""

from __future__ import annotations

import threading
from collections.abc import Callable

from queue_middleware.events import ServiceError
from queue_middleware.instrumentation import AttemptWork, Instruments
from queue_middleware.jobs.ids import SEQUENCE_BITS
from queue_middleware.jobs.models import Claim, Progress

from .completer import JobCompleter
from .context import WorkerContext
from .early_end import AbortReason
from .executor import JobExecutor
from .log_buffer import LogBuffer
from .slots import JobSlots


class InstrumentedExecutor(JobExecutor):
    """Runs the attempt inside what the instrumentations enter. A class of its own, so that other queues pay nothing for it."""

    __slots__ = ("_instruments", "_on_progress", "_work")

    def __init__(
        self,
        claim: Claim,
        context: WorkerContext,
        completer: JobCompleter,
        slots: JobSlots[JobExecutor],
        instruments: Instruments,
    ) -> None:
        super().__init__(claim, context, completer, slots)
        self._instruments = instruments

    async def run(self) -> None:
        """Enter, run, and add what became of the attempt."""
        submitted_at = (self.claim.key >> SEQUENCE_BITS) / 1000
        self._work = work = AttemptWork(self.claim, max(0.0, self._context.clock() - submitted_at))
        self._on_progress = _ProgressReports(work.progress_listeners, self._context)
        with self._instruments.attempt(work):
            self.claim = work.claim
            if self.claim.webhook is not None or self.claim.task is not None:
                self._instruments.keep_trace(self.claim)
            try:
                await super().run()
            finally:
                work.outcome = getattr(self, "_outcome", None)
                work.is_handed_back = self.abort_reason is AbortReason.SHUTDOWN and work.outcome is None
        del self._work  # its error may keep frames that refer to this attempt

    def log_buffer(self) -> LogBuffer | None:
        """The same; what the application reports is also passed to the instrumentations."""
        buffer = super().log_buffer()
        if buffer is not None:
            buffer.on_progress = self._on_progress
        return buffer

    def callback_url(self) -> str:
        """The same; the callback can then be linked to this attempt. From any thread."""
        url = super().callback_url()
        if self.claim.task is None:
            if threading.get_ident() == self._context.logs.thread:
                self._instruments.keep_trace(self.claim)
            else:
                self._context.loop.call_soon_threadsafe(self._instruments.keep_trace, self.claim)
        return url

    def _check_error(self, error: BaseException | None) -> None:
        self._work.error = error
        super()._check_error(error)


class _ProgressReports:
    """Passes progress reports to listeners. It does not refer to the attempt, which refers to it through its log buffer."""

    __slots__ = ("_context", "_listeners")

    def __init__(self, listeners: list[Callable[[Progress], None]], context: WorkerContext) -> None:
        self._listeners = listeners
        self._context = context

    def __call__(self, progress: Progress) -> None:
        for listener in self._listeners:
            try:
                listener(progress)
            except Exception as defect:
                self._context.loop.call_soon_threadsafe(self._context.emit, ServiceError("instrumentation", defect, 0.0))
