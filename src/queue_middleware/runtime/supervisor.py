"""Builds the services of one start of a queue, starts and restarts their loops, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from queue_middleware.asgi.replay import App
from queue_middleware.background import DRAIN_TIMEOUT, run_in_thread
from queue_middleware.errors import OutboundShortage, QueueError
from queue_middleware.events import Emit, OperatorNotice, OperatorWarning, ServiceError, Started, Stopped, Stopping
from queue_middleware.instrumentation import Instrumentation, Instruments
from queue_middleware.jobs.processes import Usage
from queue_middleware.jobs.routes import RouteTemplates
from queue_middleware.observability.instrumentation import combine
from queue_middleware.observability.metrics.meter import Meter
from queue_middleware.outbound.client import HTTPClient
from queue_middleware.outbound.guard import Guard
from queue_middleware.settings import Settings
from queue_middleware.stores import Stores, open_stores
from queue_middleware.tasks.callback_auth import CallbackVerifier
from queue_middleware.tasks.callbacks import CallbackHandler
from queue_middleware.tasks.completion_format import CompletionFormat
from queue_middleware.tasks.polling.poller import Poller
from queue_middleware.tasks.polling.request import PollClient
from queue_middleware.tasks.secret_ids import SecretIds, callback_secrets
from queue_middleware.tasks.target import TargetResolver
from queue_middleware.webhooks.admin import WebhookAdmin
from queue_middleware.webhooks.body import REQUEST_FORMAT, TASK_FORMAT, BodyFormat, RequestFormat
from queue_middleware.webhooks.dispatcher import Dispatcher
from queue_middleware.webhooks.message import MessageBuilder
from queue_middleware.webhooks.signing.reloader import KeyReloader
from queue_middleware.worker.log_capture import LogCapture
from queue_middleware.worker.worker import Worker

from .control import QueueControl
from .maintenance import LeaseRenewer, Maintenance
from .request_admin import RequestAdmin
from .route_exchange import exchange_routes
from .shutdown import ShutdownSignal
from .status_feed import StatusFeed
from .stray_variables import stray_variables

_RESTART_PAUSE = 1.0


class _Loop(Protocol):
    """Works until `stop`."""

    async def run(self) -> None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Outside:
    """What the services need for other services: keys, connections, and the secrets in callback URLs."""

    key_reloader: KeyReloader
    client: HTTPClient
    secret_ids: SecretIds
    callback_verifier: CallbackVerifier


class Supervisor:
    """The services of one start of one queue; they exist from construction by `open` on.

    `clock` gives Unix seconds, and decides schedules, deadlines, retention and signatures; None is the system's clock.
    """

    @classmethod
    async def open(
        cls,
        stack: AsyncExitStack,
        app: App,
        settings: Settings,
        guard: Guard,
        callback_verifier: CallbackVerifier,
        routes: RouteTemplates,
        emit: Emit,
        instrumentations: Iterable[Instrumentation] = (),
        meter: Meter | None = None,
        clock: Callable[[], float] | None = None,
    ) -> Supervisor:
        """Open the database and everything that needs it; `stack` closes it. Raises the reason why that is impossible."""
        stores = open_stores(settings, None if clock is None else lambda: round(clock() * 1000))
        await stores.database.open()
        stack.push_async_callback(stores.database.close)
        with contextlib.suppress(QueueError):  # e.g. on a full disk; the first renewal of leases lists it then
            await stores.operations.register(settings.concurrency)
        routes.remember(await stores.jobs.routes())
        seconds = clock or time.time
        key_reloader = KeyReloader(settings, stores.location.secrets, emit, clock=seconds)
        await key_reloader.open()
        client = HTTPClient(guard, settings.webhook_timeout, on_shortage=partial(_emit_shortage, emit))
        outbound = await stack.enter_async_context(client)
        secret_ids = SecretIds(await run_in_thread(callback_secrets, settings.callback_secret, stores.location.secrets))
        if meter is not None:
            stores.metrics.attach(meter)
            stack.push_async_callback(stores.metrics.close)
        instruments = combine(instrumentations, stores.jobs, emit)
        outside = _Outside(key_reloader, outbound, secret_ids, callback_verifier)
        self = cls(app, settings, stores, outside, routes, emit, instruments, meter, seconds)
        stack.callback(self.shutdown_signal.close)
        await self._maintenance.warn()
        if stores.database.is_first:
            self._report_once()
        self._start_outside_loop(stack)
        return self

    def __init__(
        self,
        app: App,
        settings: Settings,
        stores: Stores,
        outside: _Outside,
        routes: RouteTemplates,
        emit: Emit,
        instruments: Instruments | None,
        meter: Meter | None,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._emit = emit
        self.instruments = instruments
        self.stores = stores
        self.key_reloader = outside.key_reloader
        self.secret_ids = secret_ids = outside.secret_ids
        jobs, tasks, webhooks, outbound = stores.jobs, stores.tasks, stores.webhooks, outside.client
        targets = TargetResolver(app, outbound, secret_ids, settings, instruments)
        self.worker = Worker(
            app, jobs, tasks, targets, settings, emit, routes=routes, clock=clock, instruments=instruments, meter=meter
        )
        self.callbacks = CallbackHandler(tasks, outside.callback_verifier, emit, instruments)
        self.webhook_admin = WebhookAdmin(webhooks, emit)
        count = meter.submitted if meter else None
        self.request_admin = RequestAdmin(jobs, stores.operations, secret_ids, emit, count, instruments)
        self.control = QueueControl(stores.operations, emit, clock)
        self.status_feed = StatusFeed(jobs, emit)
        self.shutdown_signal = ShutdownSignal(self.status_feed.stop)
        messages = MessageBuilder(self.key_reloader.signer, _formats(stores, settings), clock)
        self._dispatcher = Dispatcher(
            jobs, webhooks, outbound, messages, settings.webhook_schedule, emit, clock=clock, instruments=instruments
        )
        poll_client = PollClient(outbound, settings)
        self._poller = Poller(jobs, tasks, poll_client, secret_ids, emit, clock=clock, instruments=instruments)
        database, duties = stores.database, (stores.metrics.flush, partial(exchange_routes, routes, jobs))
        self._maintenance = Maintenance(
            jobs, tasks, stores.operations, emit, database.warnings, self._tokens, database.storage_error, duties
        )

    def _report_once(self) -> None:
        """Report what is the same for all processes on the database."""
        for note in self.stores.database.notes():
            self._emit(OperatorNotice(note))
        for message, is_near in stray_variables():
            self._emit(OperatorWarning(message) if is_near else OperatorNotice(message))

    def _start_outside_loop(self, stack: AsyncExitStack) -> None:
        """Start what works outside the event loop: renewing leases, and capturing log records."""
        renewer = LeaseRenewer(self.stores.jobs, self._settings.lease, self._emit, self._tokens, self._usage)
        stack.push_async_callback(renewer.stop)
        renewer.start()
        if self._settings.capture_logs and self._settings.max_logs:
            stack.enter_context(LogCapture(self.stores.jobs, asyncio.get_running_loop()))

    def _usage(self) -> Usage:
        return self.worker.usage().replace(streams=self.status_feed.streams)

    def _tokens(self) -> list[int]:
        return self.worker.tokens() + self._dispatcher.tokens() + self._poller.tokens()

    async def run(
        self, state: Mapping[str, Any] | None, context: Context, started: Callable[[], None], stop: asyncio.Event
    ) -> None:
        """Work until `stop`, then drain. `state` and `context` are what the application prepared for its requests.

        `started` is called when everything can be used, before observers learn about it.
        """
        self.worker.set_app_context(state, context)
        loops: tuple[_Loop, ...] = (self._dispatcher, self._poller, self._maintenance, self.status_feed, self.key_reloader)
        async with asyncio.TaskGroup() as group:
            working = group.create_task(self._restart_on_error(self.worker.run), name="queue-worker")
            for loop in loops:
                group.create_task(self._restart_on_error(loop.run), name=f"queue-{type(loop).__name__.lower()}")
            started()
            self._emit(Started(self.stores.location.name, self._settings.concurrency, self._settings.name))
            await stop.wait()
            self._report_shutdown()
            self.status_feed.stop()
            self.worker.stop()
            await working
            # Stopped after the worker: webhooks of requests that end while draining may still be sent.
            for loop in loops:
                loop.stop()
        self._emit(Stopped(self.worker.handed_back))

    def check_due(self) -> None:
        """Check for due work now, retention included; for callers that have moved the clock."""
        for service in (self.worker, self._dispatcher, self._poller, self._maintenance):
            service.wake()

    def _report_shutdown(self) -> None:
        """Report at once what shutdown waits for: if nothing is printed for half a minute, operators try `kill -9` next."""
        can_hurry = self.shutdown_signal.listen_for_interrupt(self.hurry)
        requests, webhooks = len(self.worker.tokens()), len(self._dispatcher.tokens())
        if requests or webhooks:
            seconds = (self._settings.shutdown_timeout if requests else 0.0) + (DRAIN_TIMEOUT if webhooks else 0.0)
            self._emit(Stopping(requests, webhooks, seconds, can_hurry))

    def hurry(self) -> None:
        """End without waiting for running work: the operator has interrupted the process a second time."""
        self.worker.hurry()
        self._dispatcher.hurry()
        self._poller.hurry()

    async def _restart_on_error(self, run: Callable[[], Awaitable[None]]) -> None:
        """Run a loop, and start it again if it raises: one defect must not stop the queue."""
        while True:
            try:
                return await run()
            except Exception as error:
                self._emit(ServiceError("loop", error, _RESTART_PAUSE))
                await asyncio.sleep(_RESTART_PAUSE)


def _formats(stores: Stores, settings: Settings) -> dict[str, BodyFormat]:
    """The bodies of webhooks, by the kind of job."""
    return {
        REQUEST_FORMAT: RequestFormat(stores.jobs.response_chunk, settings),
        TASK_FORMAT: CompletionFormat(stores.tasks.record, stores.jobs.response_chunk, settings),
    }


def _emit_shortage(emit: Emit, shortage: OutboundShortage, retry_in: float) -> None:
    emit(ServiceError("outbound", shortage, retry_in))
