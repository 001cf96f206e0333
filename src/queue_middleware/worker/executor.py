"""Executes one claim: calls the application, and commits the response, a retry or a failure."""

from __future__ import annotations

import asyncio
import math
import os
import weakref
from collections.abc import Awaitable
from contextvars import Context

from queue_middleware.asgi.cancellation import CancellableCall, ends_process, in_wsgi_bridge, invoke
from queue_middleware.asgi.replay import NoResponse, Replay, ResponseTooLarge
from queue_middleware.asgi.scope import build_scope
from queue_middleware.errors import QueueError
from queue_middleware.events import ClaimLost, ServiceError
from queue_middleware.jobs.models import Claim, ErrorType, Failure, StoredResponse
from queue_middleware.jobs.outcomes import LossReason
from queue_middleware.jobs.retry import RetryDecision, decide_retry

from .completer import CommitResult, JobCompleter
from .context import WorkerContext
from .early_end import AbortReason, end_early, failure_of
from .job_context import TOO_LATE, ActiveJob, activate
from .log_buffer import LogBuffer
from .slots import JobSlots
from .task_session import TaskSession

BACKGROUND_LIMIT = 300.0
"""Seconds that a call may go on after its response (background tasks) before its slot is given to others."""


class JobExecutor:
    """One attempt: claim, scope, call, response, retry decision, commit, in this order. `run` is the body of its task.

    The worker and the task own the executor, and it owns its parts, which call it through small protocols: `Occupant`,
    `Startable`, `Abortable`, `Execution` and `ReplayOwner`. What the application may keep (its context, the channels of the
    replay) and every timer refers to it weakly, so that it is freed without the garbage collector when it is over.
    """

    __slots__ = (
        "__weakref__", "_call", "_completer", "_context", "_deadline", "_has_returned", "_is_committing", "_limit", "_log",
        "_outcome", "_replay", "_session", "_settling", "_slots", "_task", "_weak_self", "abort_reason", "claim", "is_settled",
        "since",
    )  # fmt: skip
    _outcome: StoredResponse | Failure

    def __init__(self, claim: Claim, context: WorkerContext, completer: JobCompleter, slots: JobSlots[JobExecutor]) -> None:
        self._context = context
        self._completer = completer
        self._slots = slots
        self.is_settled = False
        """Whether the end of the attempt is committed, or is being committed."""
        self.abort_reason: AbortReason | None = None
        self._task: asyncio.Task[None] | None = None
        self._call: CancellableCall | None = None
        self._session: TaskSession | None = None
        self._log: LogBuffer | None = None
        self._settling: asyncio.Task[None] | None = None
        self._is_committing = self._has_returned = False
        self._deadline = math.inf
        self.since = context.loop.time()
        """When it was claimed, then when it began; by the event loop's clock."""
        self._limit = context.settings.request_timeout
        if claim.task is not None:
            self._session = session = TaskSession(claim, claim.task, context)
            claim = session.claim
            self._limit = session.time_limit
        self.claim = claim
        self._weak_self = weakref.ref(self)
        self._replay = Replay(claim.request, context.settings.max_response_body, self._weak_self)

    def begin(self, variables: Context) -> None:
        """Start the task. The time limit counts from now; an attempt that was aborted meanwhile is only settled."""
        self.since = self._context.loop.time()
        if self.abort_reason is None:
            self._deadline = self.since + self._limit
        self._task = self._context.loop.create_task(self.run(), context=variables)

    async def run(self) -> None:
        """Call the application and settle. The slot is free when both the call and the commit are over."""
        claim, context = self.claim, self._context
        try:
            self._completer.report_start(claim)
            scope = error = None
            if self.abort_reason is None:
                activate(ActiveJob(claim.request_id, claim.attempt, claim.route, context.store, self._weak_self))
                scope = build_scope(claim.request, claim.request_id, claim.attempt, context.state)
                app = context.app if self._session is None else self._session.begin(self._replay)
                self._call = call = CancellableCall(invoke(app, scope, self._replay))
                error = await call
                self._check_error(error)
            if self.abort_reason is not None:
                self.settle_aborted()
            elif not self._replay.is_complete:
                self._settle(self._replay.failure_of_unfinished_call(error))
            if scope is not None:
                context.routes.learn(scope, claim.request.root_path, claim.route)  # last: the scope is the application's by now
        except Exception as unforeseen:
            context.emit(ServiceError("attempt", unforeseen, 0))
            self._settle(Failure(ErrorType.RUNNER_SERVER_ERROR, "the queue failed to settle this request"))
        finally:
            self._has_returned = True
            self._vacate_if_over()

    def _check_error(self, error: BaseException | None) -> None:
        """Emit what the application raised. Raises it again if it ends the process or the event loop."""
        if error is None or isinstance(error, ResponseTooLarge | NoResponse):
            return
        if ends_process(error):
            self._charge_as_crash()
            raise error
        if isinstance(error, asyncio.CancelledError) and self._context.is_being_torn_down():
            self._forget()  # the store hands the job back when it is closed
            raise error
        if self.abort_reason is None:
            self._completer.report_error(self.claim, error)

    def _vacate_if_over(self) -> None:
        if self._has_returned and not self._is_committing:
            self._replay.disconnect()  # a task of the application may still wait in `receive`
            self._slots.vacate(self)

    # --- called by the replay while the application sends

    async def store_chunk(self, number: int, data: bytes) -> None:
        """Store a chunk of a large response while it is being produced."""
        if not await self._context.retry_on_outage(lambda: self._context.store.append(self.claim, number, data)):
            self.abort(AbortReason.LOST)

    def on_response(self, outcome: StoredResponse | Failure) -> None:
        """Settle at once. What the application does after its response is background work with its own time limit."""
        self._deadline = self._context.loop.time() + BACKGROUND_LIMIT
        self._settle(outcome)

    # --- commit

    def _settle(self, outcome: StoredResponse | Failure) -> None:
        """Commit the outcome, once. Nothing awaits it: a time limit of the application must not interrupt the commit."""
        if self.is_settled:
            return
        decision = decide_retry(outcome, self.claim.attempt, self.claim.retry)
        self.is_settled = self._is_committing = True
        self._outcome = outcome
        if decision is not None:
            self._settle_in_task(self._retry(decision))
        elif self._log is not None:
            self._settle_in_task(self._commit_until_stored(None))
        else:
            try:
                self._completer.commit(self.claim, outcome, self._session, self._on_commit)
            except QueueError as error:
                self._on_commit(error)
            except Exception as defect:
                self._on_defect(defect)

    def _on_commit(self, result: CommitResult | QueueError) -> None:
        if isinstance(result, QueueError):
            self._settle_in_task(self._commit_until_stored(result))
        else:
            self._on_final(result)

    def _settle_in_task(self, settling: Awaitable[None]) -> None:
        self._settling = self._context.create_task(settling, self._on_defect)

    def _on_defect(self, defect: Exception) -> None:
        """Give the claim up: its lease is no longer renewed, and the job is rescued when it ends."""
        self._context.emit(ServiceError("attempt", defect, 0))
        self._forget()
        self._on_committed()

    async def _commit_until_stored(self, error: QueueError | None) -> None:
        self._on_final(await self._completer.commit_until_stored(self.claim, self._outcome, self._session, self._log, error))

    async def _retry(self, decision: RetryDecision) -> None:
        self._on_final(await self._completer.retry(self.claim, self._outcome, decision, self._session, self._log))

    def _on_final(self, held: CommitResult) -> None:
        if held:
            self._completer.report(self.claim, self._outcome, held, self.since)
        else:
            self._on_claim_lost()
        self._on_committed()

    async def _release(self) -> None:
        if end := await self._completer.release(self.claim, self._session, self._log):
            self._completer.report(self.claim, None, end, self.since)
        self._on_committed()

    def _on_committed(self) -> None:
        self._is_committing = False
        self._vacate_if_over()

    def _on_claim_lost(self) -> None:
        """Another process has the job by now; or the worker has ended in an outage, and the store hands the job back."""
        self._forget()
        if not self._context.is_being_torn_down():
            self._context.emit(ClaimLost(self.claim.request_id, self.claim.attempt, self.claim.route))

    def _charge_as_crash(self) -> None:
        """Charge the attempt, which ends this process. Nothing awaits it: the event loop is about to end."""
        if not self.is_settled:
            self._forget()
            self._context.store.lose(self.claim, LossReason.EXIT)

    def _forget(self) -> None:
        """Commit nothing more of this attempt."""
        self.is_settled = True
        if self._log is not None:
            self._log.discard()

    # --- what only few attempts need

    def log_buffer(self) -> LogBuffer | None:
        """The buffer for its log lines, created by the first call; None if the attempt is over. From any thread."""
        logs = self._context.logs
        if os.getpid() != logs.process:
            return None
        if self._log is None and not self.is_settled:
            with logs.creation_lock:
                self._log = self._log or LogBuffer(self.claim, logs)
                if self._session is not None:
                    self._log.redact(self._session.secret)
        return None if self.is_settled else self._log

    def callback_url(self) -> str:
        """The callback URL. For a plain request the first call creates the task session. From any thread."""
        logs = self._context.logs
        if os.getpid() != logs.process:
            raise RuntimeError("this process was forked from the one that handles the request; read callback_url there")
        with logs.creation_lock:
            if self.is_settled:
                raise RuntimeError(TOO_LATE)
            if self._session is None:
                self._session = TaskSession.on_demand(self.claim, self._context)
            url = self._session.callback_url(self._replay)
            if self._log is not None:
                self._log.redact(self._session.secret)
            return url

    def check_deadline(self, now: float) -> None:
        """Called periodically: end a call that takes too long, and free the slot of background work that does not end."""
        if now < self._deadline or self._is_committing:
            return  # an outcome that is not yet stored needs the lease, which only a slot renews
        if not self.is_settled:
            self.abort(AbortReason.TIMEOUT)
        else:
            self._completer.report_stuck(self.claim, now - self.since)
            self._deadline = math.inf
            self._slots.vacate(self, still_running=True)

    def abort(self, reason: AbortReason) -> None:
        """End it early, unless it is settled. Returns at once; see `early_end.end_early` for the steps."""
        if self.abort_reason is None and not self.is_settled:
            self.abort_reason = reason
            self._deadline = math.inf
            end_early(self._weak_self, self._context.loop)

    def disconnect(self) -> None:
        """Send `http.disconnect` to the application, and ignore what it still sends."""
        self._replay.disconnect()

    def cancel_call(self) -> bool:
        """Cancel what can be cancelled; False for a call inside a WSGI bridge, which never can."""
        task, call = self._task, self._call
        if task is not None and not task.done():
            if in_wsgi_bridge(self.claim.request_id):
                return False
            if call is not None and call.in_thread():
                call.cancel_next()
            else:
                task.cancel()
        return True

    def settle_unended(self) -> None:
        """Settle a job whose code does not end, for instance a thread. Its slot stays occupied until it does."""
        if self._task is not None and not self.is_settled:
            self._completer.report_stuck(self.claim, self._context.loop.time() - self.since)
            self.settle_aborted()

    def settle_aborted(self) -> asyncio.Task[None] | None:
        """Settle by the reason of the abort. Idempotent; returns the task that may have to be awaited."""
        if not self.is_settled:
            if (failure := failure_of(self.abort_reason, self._limit)) is not None:
                self._settle(failure)
            elif self.abort_reason is AbortReason.SHUTDOWN:
                self.is_settled = self._is_committing = True
                self._settle_in_task(self._release())
            else:
                self._on_claim_lost()
        return self._settling

    def abandon(self) -> None:
        """At the end of the process: cancel what can be cancelled, without waiting for it."""
        self._forget()
        if self._call is None:
            # A task that is cancelled before its first step would never free its slot; with a reason it ends there.
            self.abort_reason = self.abort_reason or AbortReason.LOST
        elif self._task is not None and not in_wsgi_bridge(self.claim.request_id):
            self._task.cancel()
