"""The attempt of a queue that has an instrumentation."""

from __future__ import annotations

from queue_middleware.instrumentation import AttemptWork, Instrumentation
from queue_middleware.jobs.ids import SEQUENCE_BITS
from queue_middleware.jobs.models import Claim

from .completer import JobCompleter
from .context import WorkerContext
from .early_end import AbortReason
from .executor import JobExecutor
from .slots import JobSlots


class InstrumentedExecutor(JobExecutor):
    """Runs the attempt inside what the instrumentation enters. A class of its own, so that others pay nothing for it."""

    __slots__ = ("_instrumentation", "_work")

    def __init__(
        self,
        claim: Claim,
        context: WorkerContext,
        completer: JobCompleter,
        slots: JobSlots[JobExecutor],
        instrumentation: Instrumentation,
    ) -> None:
        super().__init__(claim, context, completer, slots)
        self._instrumentation = instrumentation

    async def run(self) -> None:
        """Enter, run, and add what became of the attempt."""
        submitted_at = (self.claim.key >> SEQUENCE_BITS) / 1000
        self._work = work = AttemptWork(self.claim, max(0.0, self._context.clock() - submitted_at))
        with self._instrumentation.attempt(work):
            self.claim = work.claim
            try:
                await super().run()
            finally:
                work.outcome = getattr(self, "_outcome", None)
                work.is_handed_back = self.abort_reason is AbortReason.SHUTDOWN and work.outcome is None

    def _check_error(self, error: BaseException | None) -> None:
        self._work.error = error
        super()._check_error(error)
