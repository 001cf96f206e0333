"""One queue around one application: when it starts and stops, and the operations that the HTTP interface calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context, copy_context
from typing import Any

from queue_middleware.asgi.replay import App
from queue_middleware.errors import NotRunning
from queue_middleware.events import Emit, Finished, Observer, OperatorWarning, ServiceError, Submitted, is_observed
from queue_middleware.jobs.counts import QueueCounts
from queue_middleware.jobs.log_lines import LogLine
from queue_middleware.jobs.models import CancelOutcome, Job, JobResult, NewJob
from queue_middleware.jobs.outcomes import CANCELLED
from queue_middleware.jobs.routes import RouteOf, RouteTemplates
from queue_middleware.jobs.task_spec import Task, TaskSpec
from queue_middleware.observability.emitter import Emitter
from queue_middleware.observability.event_log import LoggingObserver
from queue_middleware.outbound.guard import WEBHOOK, Guard
from queue_middleware.settings import Settings
from queue_middleware.syntax.urls import encode_url
from queue_middleware.tasks.callback_auth import CallbackVerifier
from queue_middleware.tasks.callbacks import CallbackHandler
from queue_middleware.tasks.models import TaskPage, TaskRecord, TaskStatus
from queue_middleware.webhooks.admin import WebhookAdmin
from queue_middleware.webhooks.signing.keyfile import keys_of_option
from queue_middleware.worker.starts import Submission

from .process import ELSEWHERE, FORKED, NEEDS_ASYNCIO, NOT_STARTED, STOPPING, asyncio_loop, register
from .status_feed import Subscription
from .supervisor import Supervisor


class Runtime:
    """One queue around one application. Nothing is opened before `start`; it can be started again after `stop`.

    `app` is what replays call; `wrapped` is the application that it belongs to, by default the same. With `exclusive` no other
    application of this process may use the database. `clock` gives Unix seconds; None is the system's clock.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        observers: Iterable[Observer] = (),
        *,
        wrapped: object = None,
        exclusive: bool = False,
        clock: Callable[[], float] | None = None,
        route_of: RouteOf | None = None,
    ) -> None:
        self.settings = settings
        self.guard = Guard(settings.outbound_allow)
        keys_of_option(settings.signing_key)  # so that a malformed key is reported at construction, not at startup
        self._app = app
        self._wrapped = app if wrapped is None else wrapped
        self._exclusive = exclusive
        self._clock = clock
        self.time = clock or time.time
        """Unix time in seconds."""
        self._callback_verifier = CallbackVerifier(settings.callback_keys, clock=self.time)
        self._emit: Emit = Emitter((LoggingObserver(), *observers))
        self.routes = RouteTemplates(settings.paths, route_of, lambda error: self._emit(ServiceError("route_of", error, 0)))
        self._running: Supervisor | None = None
        self._not_running_reason = NOT_STARTED
        self._starts = 0
        self._start_lock = threading.Lock()
        self._thread = 0
        self._main: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    # --- starting and stopping

    async def start(self, state: Mapping[str, Any] | None = None, context: Context | None = None) -> None:
        """Open everything and start working. `state` and `context` are what the application prepared for its requests.

        Raises the reason why that is impossible, with nothing left open. A second start in the same event loop joins the first;
        a start while the queue is stopping waits for the end and starts again.
        """
        loop = asyncio_loop()
        self._check_loop(loop)
        if loop is None:
            self._not_running_reason = NEEDS_ASYNCIO
            self.warn(NEEDS_ASYNCIO)
            return
        while (main := self._main_in(loop)) is not None and self._stop.is_set():
            await asyncio.wait((main,))
        with self._start_lock:  # another thread may have started it meanwhile
            self._check_loop(loop)
            if main is None:
                register(self, exclusive=self._exclusive)
                self._starts = 0
                self._stop = asyncio.Event()
                self._ready = loop.create_future()
                self._main = main = loop.create_task(self._serve(self._ready, state, context or copy_context()), name="queue")
            self._starts += 1
        ready = self._ready
        try:
            await asyncio.wait((ready, main), return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                await main
        except BaseException:
            if self._main is main:  # it has not been started again meanwhile
                self._starts -= 1
                if self._starts <= 0:
                    self._stop.set()
            raise

    def _main_in(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
        """The task that runs in this event loop; a task of another loop cannot be awaited here."""
        main = self._main
        return None if main is None or main.done() or main.get_loop() is not loop else main

    def _check_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Raise `NotRunning` if it runs in the event loop of another thread. A task of a dead event loop does not run."""
        if self._main is not None and self.is_alive() and self._main.get_loop() is not loop:
            raise NotRunning(ELSEWHERE, 5)

    @property
    def identity(self) -> tuple[str, object]:
        """The real path of the database, and the application."""
        return self.settings.database, self._wrapped

    def is_alive(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._main is not None and not self._main.done() and self._main.get_loop().is_running()

    def detach_after_fork(self) -> None:
        """Called in a forked child: the queue runs in the parent only."""
        # Also while it stops: until the end it holds files that a child must not keep open when its parent dies.
        if self._main is not None and not self._main.done() and self._running is not None:
            self._not_running_reason = FORKED
            self._running.stores.database.detach_after_fork()

    async def stop(self) -> None:
        """Drain, hand back, close. Idempotent."""
        if self._starts == 0 or self._main is None:
            return
        self._starts -= 1
        if self._starts == 0:
            self._not_running_reason = STOPPING
            self._stop.set()
            await asyncio.shield(self._main)

    @asynccontextmanager
    async def running(self, state: Mapping[str, Any] | None = None) -> AsyncIterator[None]:
        """Start and stop around a block, for applications whose lifespan does not."""
        await self.start(state)
        try:
            yield
        finally:
            await self.stop()

    async def _serve(self, ready: asyncio.Future[None], state: Mapping[str, Any] | None, context: Context) -> None:
        async with AsyncExitStack() as stack:
            stack.callback(self._on_end)
            supervisor = await Supervisor.open(
                stack, self._app, self.settings, self.guard, self._callback_verifier, self.routes, self._emit, self._clock
            )

            def started() -> None:
                self._running = supervisor
                self._thread = threading.get_ident()
                self._not_running_reason = ""
                ready.set_result(None)

            await supervisor.run(state, context, started, self._stop)

    def _on_end(self) -> None:
        self._running = None
        self._not_running_reason = self._not_running_reason or STOPPING

    def warn(self, message: str) -> None:
        """Warn the operator. If several processes run on one database, only the first one does, once it runs."""
        if self._running is None or self._not_running_reason or self._running.stores.database.is_first:
            self._emit(OperatorWarning(message))

    # --- access to what runs

    @property
    def services(self) -> Supervisor:
        """The services, from the end of `start` until everything is closed, also while draining. Raises `NotRunning`."""
        if self._running is None:
            raise NotRunning(self._not_running_reason, 5)
        return self._running

    def check_running(self) -> None:
        """Raise `NotRunning` with the reason if the queue accepts no requests, or not in this thread."""
        if self._not_running_reason:
            raise NotRunning(self._not_running_reason, 5)
        if threading.get_ident() != self._thread:
            raise NotRunning(ELSEWHERE, 5)

    # --- requests

    def check_webhook(self, url: str, field: str = WEBHOOK) -> str:
        """The URL as it is stored, encoded. Raises `InvalidWebhook`, which calls it `field`, if it could never be called."""
        self.guard.check_url(url, field)
        return encode_url(url, field)

    async def submit(self, new: NewJob) -> Submission:
        """Store a job, and claim it in the same transaction if a slot is free and no job is queued. Raises as the store does.

        Send the response inside `with submission:`; a claimed job starts after it, even if the caller is cancelled before.
        """
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

    async def cancel(self, request_id: str) -> CancelOutcome:
        """Cancel a request, or ask its worker to. Raises `UnknownRequest`."""
        cancelled = await self.services.stores.jobs.cancel(request_id)
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

    async def counts(self) -> QueueCounts:
        """How many requests, webhooks and receivers are in each state. Raises `NotRunning`."""
        self.check_running()
        return await self.services.stores.jobs.counts()

    async def keys(self) -> Mapping[str, Any]:
        """The current JSON Web Key Set that verifies webhooks of this queue."""
        return await self.services.key_reloader.jwks()
