"""One queue around one application: the operations that the HTTP interface calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any

from msgspec import UnsetType

from queue_middleware.errors import NotRunning, TooLarge
from queue_middleware.events import Finished, Submitted, is_observed
from queue_middleware.instrumentation import ActionWork, Instruments, SubmissionWork
from queue_middleware.jobs.acts import Changes
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.counts import QueueCounts
from queue_middleware.jobs.log_lines import LogLine
from queue_middleware.jobs.models import CancelOutcome, Headers, Job, JobResult, NewJob
from queue_middleware.jobs.outcomes import CANCELLED
from queue_middleware.jobs.task_spec import Task, TaskSpec
from queue_middleware.outbound.guard import WEBHOOK
from queue_middleware.syntax.urls import encode_url
from queue_middleware.tasks.callbacks import CallbackHandler
from queue_middleware.tasks.models import TaskPage, TaskRecord, TaskStatus
from queue_middleware.webhooks.admin import WebhookAdmin
from queue_middleware.worker.starts import Submission

from .control import QueueControl
from .lifecycle import Lifecycle
from .process import STOPPING
from .readiness import Readiness, Ready
from .request_admin import RequestAdmin
from .status_feed import Subscription


class Runtime(Lifecycle):
    """One queue around one application."""

    def readiness(self, ready: Ready | None) -> Readiness:
        """The health check of this queue. `ready` is that of the application."""
        return Readiness(self, ready, self._emit)

    # --- requests

    def check_webhook(self, url: str, field: str = WEBHOOK) -> str:
        """The URL as it is stored, encoded. Raises `InvalidWebhook`, which calls it `field`, if it could never be called."""
        self.guard.check_url(url, field)
        return encode_url(url, field)

    def changes(self, body: bytes | None, headers: Mapping[str, str] | None, webhook: str | UnsetType | None) -> Changes:
        """What an operator changes in a copy of a request. Raises `InvalidWebhook`, `TooLarge`."""
        if body is not None and len(body) > self.settings.max_request_body:
            raise TooLarge(f"the body has {len(body)} bytes; at most {self.settings.max_request_body} are accepted")
        return Changes(body, headers or {}, self.check_webhook(webhook) if isinstance(webhook, str) else webhook)

    def submit(self, new: NewJob, caller: Headers | None = None, *, status: int = 200) -> Awaitable[Submission]:
        """Store a job, and claim it in the same transaction if a slot is free and no job is queued. Raises as the store does.

        `caller` has the headers of the HTTP request that submits; None if they are those of `new.request`. `status` is that of
        the response if the job is stored. Send the response inside `with submission:`; a claimed job starts after it, even if
        the caller is cancelled before.
        """
        instruments = self.services.instruments
        if instruments is None:
            return self._submit(new)
        work = SubmissionWork(new, new.request.headers if caller is None else caller, status)
        return self._submit_inside(instruments, work)

    async def _submit_inside(self, instruments: Instruments, work: SubmissionWork) -> Submission:
        with instruments.submission(work):
            submission = await self._submit(work.job)
            work.result = submission.result
        return submission

    async def _submit(self, new: NewJob) -> Submission:
        worker, store = self.services.worker, self.services.stores.jobs
        submission = Submission(worker)
        starts = worker.reserve(new)
        try:
            storing = store.submit(new, start=starts, on_result=submission.on_result if starts else None)
        except BaseException:
            if starts:
                worker.hold(None)
            raise
        try:
            submission.result = result = await storing
        except BaseException:
            submission.close()
            raise
        if result.existing is None and self.meter is not None:
            self.meter.submitted(new.route)
        if result.existing is None and is_observed(self._emit, Submitted):
            self._emit(Submitted(result.request_id, new.route, new.request.raw_path.decode("latin-1")))
        return submission

    async def job(self, request_id: str) -> Job:
        """The state of a request. Raises `UnknownRequest`."""
        return await self.services.stores.jobs.job(request_id)

    @asynccontextmanager
    async def follow(
        self, request_id: str, send: object, *, lines: bool = False, states_only: bool = False
    ) -> AsyncIterator[Subscription]:
        """Subscribe as `StatusFeed.follow` does, until the first sign of shutdown, also one that is found through `send`."""
        feed = self.services.status_feed
        if feed.stopped:
            raise NotRunning(STOPPING, 5)
        self.services.shutdown_signal.listen(send)
        async with feed.follow(request_id, lines=lines, states_only=states_only) as subscription:
            yield subscription

    async def result(self, request_id: str) -> JobResult:
        """The result of a request. Raises `UnknownRequest`, `StillInProgress`."""
        return await self.services.stores.jobs.result(request_id)

    async def response_chunk(self, key: int, number: int) -> bytes:
        """One chunk of a stored response."""
        return await self.services.stores.jobs.response_chunk(key, number)

    async def logs(self, key: int, after: int = 0) -> list[LogLine]:
        """The log lines of a job after the line number `after`."""
        return await self.services.stores.jobs.logs(key, after)

    @contextmanager
    def acting(self, action: Action, operator: str | None = None) -> Iterator[ActionWork]:
        """What the instrumentations enter while an operator does something; None stands for a client."""
        work, instruments = ActionWork(action, operator), self.services.instruments
        with nullcontext() if instruments is None else instruments.action(work):
            yield work

    async def cancel(self, request_id: str) -> CancelOutcome:
        """Cancel a request, or ask its worker to. Raises `UnknownRequest`."""
        with self.acting(Action.CANCEL) as work:
            cancelled = await self.services.stores.jobs.cancel(request_id)
            work.count = int(cancelled is not CancelOutcome.FINISHED)
        if cancelled is CancelOutcome.CANCELLED:
            self._emit(Finished.of(request_id.lower(), 0, CANCELLED, 0.0))
        return cancelled

    def new_task(self, spec: TaskSpec, *, listed: bool = False) -> Task:
        """The task to submit with a job that may wait for an external service."""
        return self.services.secret_ids.new_task(spec, listed=listed)

    def secret_ids_of(self, task: Task) -> tuple[str, str] | None:
        """The callback id and the signal token of a task; None if their secret is not configured any more."""
        return self.services.secret_ids.of_task(task)

    async def task(self, request_id: str) -> TaskRecord:
        """A task with its job. Raises `UnknownRequest`."""
        return await self.services.stores.tasks.record(request_id)

    async def tasks(self, client: str, status: TaskStatus | None, *, limit: int, offset: int) -> TaskPage:
        """A page of the tasks of a client, newest first."""
        return await self.services.stores.tasks.page(client, status, limit=limit, offset=offset)

    @property
    def callbacks(self) -> CallbackHandler:
        """Accepts callbacks and signals."""
        return self.services.callbacks

    @property
    def webhook_admin(self) -> WebhookAdmin:
        """Webhooks as the operator sees and redelivers them. Raises `NotRunning`."""
        self.check_running()
        return self.services.webhook_admin

    @property
    def request_admin(self) -> RequestAdmin:
        """Requests as the operator sees and changes them. Raises `NotRunning`."""
        self.check_running()
        return self.services.request_admin

    @property
    def control(self) -> QueueControl:
        """What operators do to the queue as a whole. Raises `NotRunning`."""
        self.check_running()
        return self.services.control

    async def counts(self) -> QueueCounts:
        """How many requests, webhooks and receivers are in each state. Raises `NotRunning`."""
        self.check_running()
        return await self.services.stores.jobs.counts()

    async def keys(self) -> Mapping[str, Any]:
        """The current JSON Web Key Set that verifies webhooks of this queue."""
        return await self.services.key_reloader.jwks()
