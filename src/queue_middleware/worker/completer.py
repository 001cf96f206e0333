"""Commits and reports how an attempt ended: result, retry or hand-back, after its log lines, retrying during outages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from queue_middleware.backoff import exponential
from queue_middleware.errors import QueueError
from queue_middleware.events import ApplicationError, AttemptFailed, AttemptStarted, Finished, JobAwaiting, SlotStuck
from queue_middleware.jobs.log_lines import retry_line
from queue_middleware.jobs.models import AttemptEnd, Claim, Failure, JobState, StoredResponse
from queue_middleware.jobs.retry import RetryDecision, attempts_allowed, task_backoff
from queue_middleware.jobs.states import FINAL

from .context import WorkerContext
from .error_notes import add_note
from .log_buffer import LogBuffer
from .task_session import TaskSession

CommitResult = bool | AttemptEnd | None
"""True if the outcome ended the job as it is, an `AttemptEnd` if the store decided differently.

False or None if the claim was no longer held. False also if the worker ended before the store was available again.
"""
_GivenBack = AttemptEnd | Literal[False] | None
"""The same for an attempt that was to be given back: None if the claim was no longer held, False if the worker ended first."""


class JobCompleter:
    """One per worker. It keeps nothing about an attempt: what belongs to one is passed to each call.

    `log` and `session` are None for most attempts.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._store = context.store

    def commit(
        self,
        claim: Claim,
        outcome: StoredResponse | Failure,
        session: TaskSession | None,
        on_result: Callable[[CommitResult | QueueError], None],
    ) -> None:
        """Commit the final outcome with one call of the store, which calls `on_result` in the event loop."""
        if session is None:
            self._store.end(claim, outcome, on_result)
        else:
            session.commit(outcome, on_result)

    async def commit_until_stored(
        self,
        claim: Claim,
        outcome: StoredResponse | Failure,
        session: TaskSession | None,
        log: LogBuffer | None,
        error: QueueError | None,
    ) -> CommitResult:
        """Commit the final outcome after the log lines. `error` is that of a first try."""

        def commit() -> Awaitable[CommitResult]:
            if session is not None:
                return session.commit(outcome)
            if isinstance(outcome, Failure):
                return self._store.fail(claim, outcome)
            return self._store.complete(claim, outcome)

        return await self._context.retry_on_outage(commit if log is None else log.before(commit), error)

    async def retry(
        self,
        claim: Claim,
        outcome: StoredResponse | Failure,
        decision: RetryDecision,
        session: TaskSession | None,
        log: LogBuffer | None,
    ) -> _GivenBack:
        """Put the job back for its next attempt, with a log line that gives the reason."""
        delay = _backoff(claim) if decision.after is None else decision.after
        reason = outcome.detail if isinstance(outcome, Failure) else f"status {outcome.status}"
        ended = f"failed: {reason}" if isinstance(outcome, Failure) else f"ended with {reason}"
        line = retry_line(
            self._context.logs.now() // 1000, claim.attempt, attempts_allowed(decision.cause, claim.retry), ended, delay
        )

        def retry() -> Awaitable[AttemptEnd | None]:
            return self._store.retry(claim, delay, line, outcome)

        held = await self._give_back(retry, session, log)
        if held and held.state is JobState.DELAYED:
            self._context.emit(AttemptFailed(claim.request_id, claim.attempt, claim.route, reason, delay))
        return held

    async def release(self, claim: Claim, session: TaskSession | None, log: LogBuffer | None) -> _GivenBack:
        """Hand the job back unfinished, so that another process runs it."""

        def release() -> Awaitable[AttemptEnd | None]:
            return self._store.release(claim)

        return await self._give_back(release, session, log)

    async def _give_back(
        self, give_back: Callable[[], Awaitable[AttemptEnd | None]], session: TaskSession | None, log: LogBuffer | None
    ) -> _GivenBack:
        """Call the store when everything that needs the claim is stored: the log lines, and the callback URL.

        An external service that was given the callback URL has to find the job by it.
        """
        if session is not None:
            await session.registered()
        return await self._context.retry_on_outage(give_back if log is None else log.before(give_back, wait=True))

    def report_start(self, claim: Claim) -> None:
        """Emit that an attempt begins."""
        if self._context.meter is not None:
            self._context.meter.started(claim)
        if self._context.observes_start:
            self._context.emit(AttemptStarted(claim.request_id, claim.attempt, claim.route))

    def report_error(self, claim: Claim, error: BaseException) -> None:
        """Emit what the application raised, after adding a note that names the request."""
        add_note(error, claim)
        self._context.emit(ApplicationError(claim.request_id, claim.attempt, claim.route, error))

    def report_stuck(self, claim: Claim, duration: float) -> None:
        """Emit that code of the attempt does not end. It began `duration` seconds ago."""
        self._context.emit(SlotStuck(claim.request_id, claim.attempt, claim.route, duration))

    def report(
        self, claim: Claim, outcome: StoredResponse | Failure | None, held: Literal[True] | AttemptEnd, since: float
    ) -> None:
        """Emit what became of the job, and count it. `held`: True if `outcome` has ended the job as it is.

        `outcome` is None for a job that was handed back. `since` is when the attempt began, by the event loop's clock.
        """
        context = self._context
        if context.meter is not None:
            context.meter.attempt_ended(claim, outcome, None if held is True else held, context.loop.time() - since)
        end = outcome if held is True else held
        if isinstance(end, AttemptEnd) and end.state is JobState.AWAITING:
            context.emit(JobAwaiting(claim.request_id, claim.attempt, claim.route))
        elif context.observes_end:
            duration = context.loop.time() - since
            if isinstance(end, StoredResponse | Failure):
                context.emit(Finished.of(claim.request_id, claim.attempt, end, duration, claim.route))
            elif end is not None and end.state in FINAL:
                context.emit(Finished(claim.request_id, claim.attempt, claim.route, end.status, end.error, duration))


def _backoff(claim: Claim) -> float:
    kind = claim.retry.backoff
    return exponential(claim.attempt) if kind is None else task_backoff(kind, claim.attempt)
