"""What runs between a start and its stop: everything is built from the settings, opened in order, and closed in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from contextvars import Context
from typing import Any, Protocol

from .aside import aside
from .callback_id import CallbackIds
from .capture import LogCapture
from .delivery import DeliveryEngine
from .departure import Departure
from .events import Announce, Noted, Outage, Started, Stopped, Stopping, Warned
from .guard import Guard
from .heartbeat import Heartbeat
from .inquiry import Inquiry
from .janitor import Janitor
from .keyfile import callback_secrets
from .keywatch import KeyWatch
from .ledger import Ledger
from .outbound import Outbound
from .poller import Poller
from .provenance import Provenance
from .reception import Reception
from .replay import App
from .rounds import GRACE
from .settings import Settings, stray_variables
from .stores.sqlite import SQLiteStore
from .stores.sqlite.files import notes
from .target import Targets
from .watch import Watch
from .worker import Worker

_RESTART_PAUSE = 1.0


class _Loop(Protocol):
    """Something that goes on until it is told to stop."""

    async def run(self) -> None: ...

    def stop(self) -> None: ...


class Engine:
    """One start of one queue: `open`, then `run`."""

    def __init__(self, app: App, settings: Settings, guard: Guard, provenance: Provenance, announce: Announce) -> None:
        self._app = app
        self._settings = settings
        self._guard = guard
        self._provenance = provenance
        self._announce = announce

    async def open(self, stack: AsyncExitStack) -> None:
        """Open everything; `stack` closes it. Raises what makes it impossible."""
        settings, announce = self._settings, self._announce
        self.store = store = SQLiteStore(settings)
        await store.open()
        stack.push_async_callback(store.close)
        self.keywatch = KeyWatch(settings, store.path, announce)
        self.signer = await self.keywatch.open()
        outbound = await stack.enter_async_context(Outbound(self._guard, settings.webhook_timeout, announce=self._announce))
        self.ids = CallbackIds(await aside(callback_secrets, settings.callback_secret, store.path))
        self.worker = Worker(self._app, store, Targets(self._app, outbound, self.ids, settings), settings, announce)
        self.reception = Reception(store.waiting, self._provenance, announce)
        self.ledger = Ledger(store.outbox, announce)
        self.watch = Watch(store, announce)
        self.departure = Departure(self.watch.stop)
        stack.callback(self.departure.close)
        self._delivery = DeliveryEngine(store, outbound, self.signer, settings, announce)
        self._poller = Poller(store, store.waiting, Inquiry(outbound, settings), self.ids, announce)
        self._janitor = Janitor(store, settings, announce, store.warnings, self._tokens, store.complaint)
        await self._janitor.warn()
        if store.is_first:
            self._say_once()
        self._attend(stack)

    def _say_once(self) -> None:
        """What is the same for all processes on the database."""
        for note in notes():
            self._announce(Noted(note))
        for message, is_near in stray_variables():
            self._announce(Warned(message) if is_near else Noted(message))

    def _attend(self, stack: AsyncExitStack) -> None:
        """What goes on beside the event loop's tasks: leases are renewed from a thread, and `logging` is listened to."""
        heartbeat = Heartbeat(self.store, self._settings, self._announce, self._tokens)
        stack.push_async_callback(heartbeat.stop)
        heartbeat.start()
        if self._settings.capture_logs and self._settings.max_logs:
            stack.enter_context(LogCapture(self.store, asyncio.get_running_loop()))

    def _tokens(self) -> list[int]:
        return self.worker.tokens() + self._delivery.tokens() + self._poller.tokens()

    async def run(
        self, state: Mapping[str, Any] | None, context: Context, started: Callable[[], None], stop: asyncio.Event
    ) -> None:
        """Work until `stop`, then drain. `state` and `context` are what the application prepared for its requests.

        `started` is called when everything can be used, and before anybody else is told so.
        """
        self.worker.adopt(state, context)
        loops: tuple[_Loop, ...] = (self._delivery, self._poller, self._janitor, self.watch, self.keywatch)
        async with asyncio.TaskGroup() as group:
            working = group.create_task(self._keep(self.worker.run), name="queue-worker")
            for loop in loops:
                group.create_task(self._keep(loop.run), name=f"queue-{type(loop).__name__.lower()}")
            started()
            self._announce(Started(str(self.store.path), self._settings.concurrency, self._settings.name))
            await stop.wait()
            self._say_what_is_waited_for()
            self.watch.stop()
            self.worker.stop()
            await working
            # After the worker: what it finished while draining may still be sent.
            for loop in loops:
                loop.stop()
        self._announce(Stopped(self.worker.handed_back))

    def _say_what_is_waited_for(self) -> None:
        """At once: where nothing is printed for half a minute, the next thing that is tried is `kill -9`."""
        can_hurry = self.departure.listen_for_interrupt(self._hurry)
        requests, webhooks = len(self.worker.tokens()), len(self._delivery.tokens())
        if requests or webhooks:
            seconds = (self._settings.shutdown_timeout if requests else 0.0) + (GRACE if webhooks else 0.0)
            self._announce(Stopping(requests, webhooks, seconds, can_hurry))

    def _hurry(self) -> None:
        """Asked to end once more: wait for nothing."""
        self.worker.hurry()
        self._delivery.hurry()
        self._poller.hurry()

    async def _keep(self, run: Callable[[], Awaitable[None]]) -> None:
        """A loop that fails in a way it did not foresee is begun again: one defect must not stop the queue."""
        while True:
            try:
                return await run()
            except Exception as error:
                self._announce(Outage("loop", error, _RESTART_PAUSE))
                await asyncio.sleep(_RESTART_PAUSE)
