"""When a queue starts and stops, and access to its services while it runs."""

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
from queue_middleware.events import Emit, Observer, OperatorWarning, ServiceError
from queue_middleware.instrumentation import Instrumentation
from queue_middleware.jobs.routes import RouteOf, RouteTemplates
from queue_middleware.observability.emitter import Emitter
from queue_middleware.observability.event_log import LoggingObserver
from queue_middleware.observability.metrics.meter import Meter
from queue_middleware.observability.otel import gauges_of, instrumentations_of
from queue_middleware.outbound.guard import Guard
from queue_middleware.settings import Settings
from queue_middleware.tasks.callback_auth import CallbackVerifier
from queue_middleware.webhooks.formats.user_agent import VERSION
from queue_middleware.webhooks.signing.keyfile import keys_of_option

from .process import ELSEWHERE, FORKED, NEEDS_ASYNCIO, NOT_STARTED, STOPPING, asyncio_loop, register
from .supervisor import Supervisor


class Lifecycle:
    """The part of `Runtime` that starts and stops. Nothing is opened before `start`; it can be started again after `stop`.

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
        observers = tuple(observers)
        self.meter = Meter(self.time) if settings.metrics else None
        """Counts what happens in this process; None without metrics."""
        counting = () if self.meter is None else (self.meter,)
        self._emit: Emit = Emitter((LoggingObserver(), *counting, *observers))
        self._instrumentations = tuple(each for each in observers if isinstance(each, Instrumentation))
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
            instrumentations = (*instrumentations_of(self.settings, VERSION), *self._instrumentations)
            supervisor = await Supervisor.open(
                stack,
                self._app,
                self.settings,
                self.guard,
                self._callback_verifier,
                self.routes,
                self._emit,
                instrumentations,
                self.meter,
                self._clock,
            )
            stores = supervisor.stores
            stack.enter_context(gauges_of(stores.metrics, stores.location.name, VERSION))

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

    @property
    def is_stopping(self) -> bool:
        """Whether it has been asked to stop and has not yet ended."""
        return self._not_running_reason == STOPPING and self._running is not None

    def check_running(self) -> None:
        """Raise `NotRunning` with the reason if the queue accepts no requests, or not in this thread."""
        if self._not_running_reason:
            raise NotRunning(self._not_running_reason, 5)
        if threading.get_ident() != self._thread:
            raise NotRunning(ELSEWHERE, 5)
