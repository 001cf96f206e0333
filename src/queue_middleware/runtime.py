"""One queue around one application: when it is started and stopped, and the verbs that the faces call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context, copy_context
from typing import Any

from .counts import Counts
from .engine import Engine
from .errors import NotRunning
from .events import Announce, Finished, Observer, Submitted, Warned, announce_to
from .guard import WEBHOOK, Guard
from .journal import Journal
from .keyfile import keys_of_option
from .ledger import Ledger
from .lifecycle import CANCELLED
from .models import Cancelled, Job, LogLine, NewJob, Result
from .process import asyncio_loop, move_in
from .provenance import Provenance
from .reception import Reception
from .replay import App
from .settings import Settings
from .starts import Submission
from .tasks import SecretId, TaskPage, TaskRecord, TaskStatus
from .taskspec import Task, TaskSpec
from .urls import encode_url
from .watch import Follower

NOT_STARTED = (
    "The queue is not running: this application got no lifespan start-up. Run it under a server that sends it "
    "(uvicorn --lifespan on), or put 'async with queue.running():' around your own start-up."
)
STOPPING = "The queue is shutting down; the same request will be taken after the restart."
FORKED = "The queue was started before this process was forked; start it in the process that serves."
NEEDS_ASYNCIO = (
    "The queue needs asyncio, and this server runs the application on another event loop (trio). The application works, the "
    "queue's routes do not; run it under asyncio, e.g. hypercorn --worker-class asyncio."
)
ELSEWHERE = (
    "This queue runs in the event loop of another thread, and it can serve only one. Make a queue for each server, each with a "
    "database of its own, or let one server listen at both addresses."
)


class Runtime:
    """One queue around one application. Nothing is opened before `start`; it can be started again after `stop`.

    `app` is what replays call, `wrapped` the application that it belongs to, the same unless given. `alone`: no other
    application of this process may use the database; not where the name of the application was given.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        observers: Iterable[Observer] = (),
        *,
        wrapped: object = None,
        alone: bool = False,
    ) -> None:
        self.settings = settings
        self.guard = Guard(settings.outbound_allow)
        self._provenance = Provenance(settings.callback_keys)
        keys_of_option(settings.signing_key)  # a malformed key is told where it was written, not when the service starts
        self._app = app
        self._wrapped = app if wrapped is None else wrapped
        self._alone = alone
        self._announce: Announce = announce_to((Journal(), *observers))
        self._starts = 0
        self._why_not = NOT_STARTED
        self._starting = threading.Lock()
        self._thread = 0
        self._main: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    # --- life

    async def start(self, state: Mapping[str, Any] | None = None, context: Context | None = None) -> None:
        """Open and begin. `state` and `context` are what the application prepared for its requests.

        Raises what made it impossible, with nothing left open. A second start in the same event loop only joins the first; one
        that comes while the queue is stopping waits for that, and begins anew.
        """
        loop = asyncio_loop()
        self._check_not_elsewhere(loop)
        if loop is None:
            self._why_not = NEEDS_ASYNCIO
            self.warn(NEEDS_ASYNCIO)
            return
        while (main := self._main_in(loop)) is not None and self._stop.is_set():
            await asyncio.wait((main,))
        with self._starting:  # another thread may have been here meanwhile
            self._check_not_elsewhere(loop)
            if main is None:
                move_in(self, alone=self._alone)
                self._starts = 0
                self._stop = asyncio.Event()
                self._ready = loop.create_future()
                self._main = main = loop.create_task(self._live(self._ready, state, context or copy_context()), name="queue")
            self._starts += 1
        ready = self._ready
        try:
            await asyncio.wait((ready, main), return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                await main
        except BaseException:
            if self._main is main:  # and nobody has begun anew
                self._starts -= 1
                if self._starts <= 0:
                    self._stop.set()
            raise

    def _main_in(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
        """What lives in this event loop; one of another loop is not ours to wait for."""
        main = self._main
        return None if main is None or main.done() or main.get_loop() is not loop else main

    def _check_not_elsewhere(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """One that runs in the event loop of another thread must stay as it is. What a dead event loop has left is nothing."""
        if self._main is not None and self.is_alive() and self._main.get_loop() is not loop:
            raise NotRunning(ELSEWHERE, 5)

    @property
    def home(self) -> tuple[str, object]:
        """See `process.Resident`."""
        return self.settings.database, self._wrapped

    def is_alive(self) -> bool:
        """See `process.Resident`."""
        return self._main is not None and not self._main.done() and self._main.get_loop().is_running()

    def disown(self) -> None:
        """Called in a forked child: what runs here runs in the parent."""
        # Also while it stops: until then it holds what a child must not keep when its parent dies.
        if self._main is not None and not self._main.done() and self._ready.done():
            self._why_not = FORKED
            self._engine.store.disown()

    async def stop(self) -> None:
        """Drain, hand back, close. Repeatable."""
        if self._starts == 0 or self._main is None:
            return
        self._starts -= 1
        if self._starts == 0:
            self._why_not = STOPPING
            self._stop.set()
            await asyncio.shield(self._main)

    @asynccontextmanager
    async def running(self, state: Mapping[str, Any] | None = None) -> AsyncIterator[None]:
        """Start and stop around a block, where no lifespan does it."""
        await self.start(state)
        try:
            yield
        finally:
            await self.stop()

    async def _live(self, ready: asyncio.Future[None], state: Mapping[str, Any] | None, context: Context) -> None:
        engine = Engine(self._app, self.settings, self.guard, self._provenance, self._announce)

        def started() -> None:
            self._engine = engine
            self._thread = threading.get_ident()
            self._why_not = ""
            ready.set_result(None)

        async with AsyncExitStack() as stack:
            stack.callback(self._ended)
            await engine.open(stack)
            await engine.run(state, context, started, self._stop)

    def _ended(self) -> None:
        self._why_not = self._why_not or STOPPING

    def warn(self, message: str) -> None:
        """Warn the operator. Of several processes on one database only the first does, once it runs."""
        if self._why_not or self._engine.store.is_first:
            self._announce(Warned(message))

    # --- the faces' verbs

    def check_running(self) -> None:
        """Raise `NotRunning` with the reason, when it is not."""
        if self._why_not:
            raise NotRunning(self._why_not, 5)
        if threading.get_ident() != self._thread:
            raise NotRunning(ELSEWHERE, 5)

    def check_webhook(self, url: str, noun: str = WEBHOOK) -> str:
        """As it is to be stored, encoded. Raises `InvalidWebhook` for a URL that would never be called, and calls it `noun`."""
        self.guard.check_url(url, noun)
        return encode_url(url, noun)

    async def submit(self, new: NewJob) -> Submission:
        """Store a job, and claim it with that if a slot is free and nothing waits. See `store.Store.submit`.

        Answer it inside of `with` the submission: what was claimed begins behind that. It begins all the same when the caller
        is cancelled before.
        """
        worker, store = self._engine.worker, self._engine.store
        submission = Submission(worker)
        try:
            if not worker.reserve(new):
                receipt = await store.submit(new)
            else:
                try:
                    storing = store.submit(new, start=True, begin=submission.claimed)
                except BaseException:
                    submission.claimed(None)
                    raise
                receipt = await storing
        except BaseException:
            submission.close()
            raise
        submission.receipt = receipt
        self._announce(Submitted(receipt.request_id, new.request.raw_path.decode("latin-1")))
        return submission

    async def job(self, request_id: str) -> Job:
        """See `store.Store.job`."""
        return await self._engine.store.job(request_id)

    @asynccontextmanager
    async def follow(self, request_id: str, send: object, *, lines: bool = False) -> AsyncIterator[Follower]:
        """See `watch.Watch.follow`. The follower ends also when the process is asked to end: servers wait for open answers.

        `send` is that of the connection; see `departure.Departure.listen`.
        """
        if self._engine.watch.stopped:
            raise NotRunning(STOPPING, 5)
        self._engine.departure.listen(send)
        async with self._engine.watch.follow(request_id, lines=lines) as follower:
            yield follower

    async def result(self, request_id: str) -> Result:
        """See `store.Store.result`."""
        return await self._engine.store.result(request_id)

    async def output(self, key: int, number: int) -> bytes:
        """See `store.Store.output`."""
        return await self._engine.store.output(key, number)

    async def logs(self, key: int, after: int = 0) -> list[LogLine]:
        """See `store.Store.logs`."""
        return await self._engine.store.logs(key, after)

    async def cancel(self, request_id: str) -> Cancelled:
        """See `store.Store.cancel`."""
        cancelled = await self._engine.store.cancel(request_id)
        if cancelled is Cancelled.WAITING:
            self._announce(Finished(request_id.lower(), 0, CANCELLED, 0.0))
        return cancelled

    # --- the faces' verbs for what waits

    def new_task(self, spec: TaskSpec, *, listed: bool = False) -> Task:
        """What is to be submitted with a job that may wait."""
        return self._engine.ids.new_task(spec, listed=listed)

    def secrets_of(self, task: Task) -> tuple[str, str]:
        """Callback id and signal token of a new task."""
        return self._engine.ids.make(SecretId.CALLBACK, task.salt), self._engine.ids.make(SecretId.SIGNAL, task.salt)

    async def task(self, request_id: str) -> TaskRecord:
        """See `waitingroom.WaitingRoom.record`."""
        return await self._engine.store.waiting.record(request_id)

    async def tasks(self, client: str, status: TaskStatus | None, *, limit: int, offset: int) -> TaskPage:
        """See `waitingroom.WaitingRoom.page`."""
        return await self._engine.store.waiting.page(client, status, limit=limit, offset=offset)

    @property
    def reception(self) -> Reception:
        """For callbacks and signals."""
        return self._engine.reception

    @property
    def ledger(self) -> Ledger:
        """The operator's view of the webhooks. Raises `NotRunning`."""
        self.check_running()
        return self._engine.ledger

    async def counts(self) -> Counts:
        """See `store.Store.counts`. Raises `NotRunning`."""
        self.check_running()
        return await self._engine.store.counts()

    async def keys(self) -> Mapping[str, Any]:
        """The JSON Web Key Set with which our webhooks can be verified, as of now."""
        await self._engine.keywatch.look()
        return self._engine.signer.jwks()
