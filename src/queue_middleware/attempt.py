"""One attempt at one job: calls the application, settles what comes out, and can be ended early."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeVar

from .backoff import exponential, grown
from .bridges import Call, in_wsgi_bridge
from .errand import Errand
from .errors import QueueError
from .events import Announce, AttemptFailed, AttemptStarted, ClaimLost, Finished, Outage, Raised, Stuck, Waiting
from .jobcontext import enter
from .lifecycle import CANCELLED, Again, judge
from .logbook import Logbook, Shelf
from .models import Claim, ErrorType, Failure, JobState, StoredResponse
from .replay import AnswerTooLarge, App, NoAnswer, Replay, build_scope
from .settings import Settings
from .store import Store
from .target import Targets

POLITE = 0.1
"""Seconds between `http.disconnect` and the cancellation of the task: time to end by itself."""
GRACE = 5.0
"""Seconds for `finally` blocks after the cancellation; then the job is settled, though its slot stays taken."""
TAIL = 300.0
"""Seconds that a call may go on after its answer (background tasks) before its slot is given to others."""
PAUSE = 1.0
"""Seconds between two tries to reach a database that does not answer."""


_Held = bool | JobState | None
"""Whether a claim was still held; of one that may wait, where its job stands, or None."""

T = TypeVar("T")


class Abort(StrEnum):
    """Why an attempt is ended before its answer."""

    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"
    LOST = "lost"


@dataclass(slots=True)
class Surroundings:
    """What all attempts of a process share."""

    app: App
    store: Store
    settings: Settings
    announce: Announce
    loop: asyncio.AbstractEventLoop
    """Kept, because asking for it costs a system call in Python 3.11."""
    shelf: Shelf
    targets: Targets
    state: Mapping[str, Any] | None = None
    """The lifespan's state, of which each replay gets a shallow copy."""
    host: asyncio.Task[Any] | None = None
    """The worker's own task."""

    def is_being_torn_down(self) -> bool:
        """Whether the event loop is ending and cancels everything; a handler may also cancel just itself."""
        return self.host is None or self.host.done() or self.host.cancelling() > 0


class Vacate(Protocol):
    """Gives an attempt's slot to others."""

    def __call__(self, attempt: Attempt, *, still_running: bool = False) -> None:
        """Called when the task ends, and before that when its slot is no longer held for it."""


class Attempt:
    """`run` is the body of its task."""

    # What most attempts never change lies in the class: one is made for every request.
    task: asyncio.Task[None] | None = None
    _application: Call | None = None
    _timer: asyncio.TimerHandle | None = None
    _reason: Abort | None = None
    _settled = False
    _is_telling = False
    _has_returned = False
    _outcome: StoredResponse | Failure
    _logbook: Logbook | None = None
    _settling: asyncio.Task[None] | None = None
    _errand: Errand | None = None
    _expecting: asyncio.Task[bool] | None = None

    def __init__(self, claim: Claim, around: Surroundings, vacate: Vacate) -> None:
        self.claim = claim
        self._around = around
        self._store = around.store
        self._announce = around.announce
        self._loop = around.loop
        self._vacate = vacate
        self._since = around.loop.time()
        self._deadline = self._since + around.settings.request_timeout
        if claim.task is not None:
            self._errand = Errand(claim, claim.task, around.targets, around.store.waiting)
            self.claim = claim = self._errand.claim
            self._deadline = self._since + self._limit()
        self._replay = Replay(claim.request, around.settings.max_response_body, self._flush, self._on_answer)

    async def run(self) -> None:
        """Call the application and settle. The slot is given back when both the call and the settlement are over."""
        claim = self.claim
        try:
            self._announce(AttemptStarted(claim.request_id, claim.attempt))
            error = None
            if self._reason is None:
                enter(self)
                error = await self._call()
            if self._reason is not None:
                self.settle_abort()
            elif not self._replay.complete:
                self._settle(self._replay.unfinished(error))
        except Exception as unforeseen:
            self._announce(Outage("attempt", unforeseen, 0))
            self._settle(Failure(ErrorType.RUNNER_SERVER_ERROR, "the queue failed to settle this request"))
        finally:
            self._stop_timer()
            self._has_returned = True
            self._leave()

    def _leave(self) -> None:
        if self._has_returned and not self._is_telling:
            self._vacate(self)

    async def _call(self) -> BaseException | None:
        """Call the application; what it raised, if anything."""
        claim = self.claim
        scope = build_scope(claim.request, claim.request_id, claim.attempt, self._around.state)
        try:
            app = self._around.app if self._errand is None else self._errand.begin(self._replay)
            self._application = Call(app(scope, self._replay.receive, self._replay.send))
            await self._application
        except AnswerTooLarge:
            return None
        except NoAnswer as error:
            return error
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self._around.is_being_torn_down():
                self._forget()  # whoever finds it unfinished runs it again
                raise
            if self._reason is None:
                self._announce(Raised(claim.request_id, error))
            return error
        return None

    async def _flush(self, number: int, data: bytes) -> None:
        if not await self._insist(None, lambda: self._store.append(self.claim, number, data)):
            self.abort(Abort.LOST)

    def _on_answer(self, outcome: StoredResponse | Failure) -> None:
        """Settle at once; what the application does afterwards is its tail."""
        self._deadline = self._loop.time() + TAIL
        self._settle(outcome)

    def check_deadline(self, now: float) -> None:
        """Called every now and then: end what takes too long, and no longer hold a slot for a tail that does not end."""
        if now < self._deadline:
            return
        if not self._settled:
            self.abort(Abort.TIMEOUT)
        else:
            self._announce(Stuck(self.claim.request_id, now - self._since))
            self._deadline = math.inf
            self._vacate(self, still_running=True)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # --- what the handler says

    @property
    def queue(self) -> Store:
        """See `jobcontext.Replaying`."""
        return self._store

    def logbook(self) -> Logbook | None:
        """See `jobcontext.Replaying`. Made by the first word; none when the attempt is over, for then nobody would close it."""
        shelf = self._around.shelf
        if os.getpid() != shelf.process:
            return None
        if self._logbook is None and not self._settled:
            with shelf.opening:
                self._logbook = self._logbook or Logbook(self.claim, shelf)
                if self._errand is not None:
                    self._logbook.hide(self._errand.secret)
        return None if self._settled else self._logbook

    def _behind_lines(self, verb: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
        """A verb that gives the claim away, after everything that was said has been stored."""
        return verb if self._logbook is None else self._logbook.before(verb, wait=True)

    # --- waiting for somebody outside

    def _limit(self) -> float:
        """Seconds for the attempt: what a task wishes, but no more than the owner of the service gives to anybody."""
        most = self._around.settings.request_timeout
        wanted = self._errand and self._errand.task.spec.timeout
        return min(wanted, most) if wanted else most

    def callback_url(self) -> str:
        """See `jobcontext.Replaying`."""
        with self._around.shelf.opening:
            if self._settled:
                raise RuntimeError("the request has its answer; ask for callback_url before you give it")
            if self._errand is None:
                self._errand = Errand.on_demand(self.claim, self._around.targets, self._store.waiting)
            errand = self._errand
            is_new = not errand.asked
            url = errand.callback_url(self._replay)
            if self._logbook is not None:
                self._logbook.hide(errand.secret)
            if is_new and threading.get_ident() == self._around.shelf.thread:
                self._expect(errand)
            elif is_new:
                self._loop.call_soon_threadsafe(self._expect, errand)
            return url

    def _expect(self, errand: Errand) -> None:
        self._expecting = self._loop.create_task(self._insist(None, errand.expect))

    async def _expected(self) -> None:
        """Before the claim is given back: who was told the callback URL has to find the job by it."""
        if self._expecting is not None:
            await asyncio.wait((self._expecting,))

    # --- settling

    def _settle(self, outcome: StoredResponse | Failure) -> None:
        """Tell the store how it ended, once. Nobody waits for it: an application's own time limit must not interrupt it."""
        if self._settled:
            return
        again = judge(outcome, self.claim.attempt, self.claim.retry)
        self._settled = self._is_telling = True
        self._outcome = outcome
        if again is not None:
            self._settling = self._loop.create_task(self._repeat(outcome, again))
            return
        if self._logbook is not None:
            self._settling = self._loop.create_task(self._finish_after(None))
            return
        try:
            self._finish(self._on_told)
        except QueueError as error:
            self._on_told(error)

    def _finish(self, told: Callable[[_Held | QueueError], None] | None = None) -> Awaitable[_Held]:
        outcome = self._outcome
        if self._errand is not None:
            return self._errand.conclude(outcome, told)
        if isinstance(outcome, Failure):
            return self._store.fail(self.claim, outcome, told)
        return self._store.complete(self.claim, outcome, told)

    def _on_told(self, held: _Held | QueueError) -> None:
        if isinstance(held, QueueError):
            self._settling = self._loop.create_task(self._finish_after(held))
        else:
            self._on_finished(held)

    async def _finish_after(self, error: QueueError | None) -> None:
        finish = self._finish if self._logbook is None else self._logbook.before(self._finish)
        self._on_finished(await self._insist(error, finish))

    def _on_finished(self, held: _Held) -> None:
        claim = self.claim
        if held is JobState.WAITING:
            self._announce(Waiting(claim.request_id, claim.attempt))
        elif held:
            self._announce(Finished(claim.request_id, claim.attempt, self._outcome, self._loop.time() - self._since))
        else:
            self._lost()
        self._is_telling = False
        self._leave()

    async def _repeat(self, outcome: StoredResponse | Failure, again: Again) -> None:
        claim = self.claim
        delay = self._pause() if again.after is None else again.after
        retry = self._behind_lines(self._store.retry)
        await self._expected()
        if await self._insist(None, lambda: retry(claim, delay)):
            reason = outcome.detail if isinstance(outcome, Failure) else f"status {outcome.status}"
            self._announce(AttemptFailed(claim.request_id, claim.attempt, reason, delay))
        else:
            self._lost()
        self._is_telling = False
        self._leave()

    def _pause(self) -> float:
        kind = self.claim.retry.backoff
        return exponential(self.claim.attempt) if kind is None else grown(kind, self.claim.attempt)

    async def _release(self) -> None:
        release = self._behind_lines(self._store.release)
        await self._expected()
        await self._insist(None, lambda: release(self.claim))
        self._is_telling = False
        self._leave()

    @property
    def is_settled(self) -> bool:
        """Whether its end has been told, or is being told, to the store."""
        return self._settled

    def settle_abort(self) -> asyncio.Task[None] | None:
        """Settle an attempt that was ended early, by the reason of its end; what may have to be waited for. Repeatable."""
        if self._reason is Abort.CANCELLED:
            self._settle(CANCELLED)
        elif self._reason is Abort.TIMEOUT:
            self._settle(Failure(ErrorType.REQUEST_TIMEOUT, f"the attempt took longer than {self._limit():g} s"))
        elif not self._settled:
            self._settled = True
            if self._reason is Abort.SHUTDOWN:
                self._is_telling = True
                self._settling = self._loop.create_task(self._release())
            else:
                self._lost()
        return self._settling

    async def _insist(self, error: QueueError | None, verb: Callable[[], Awaitable[T]]) -> T | Literal[False]:
        """Do it, whatever state the database is in: work that was done is not thrown away for an outage.

        False also when the worker has ended meanwhile: then whoever comes next takes the job over.
        """
        while True:
            if error is not None:
                if self._around.is_being_torn_down():
                    return False
                self._announce(Outage("settle", error, PAUSE))
                await asyncio.sleep(PAUSE)
            try:
                return await verb()
            except QueueError as again:
                error = again

    def _forget(self) -> None:
        """Say nothing more of it to the store."""
        self._settled = True
        if self._logbook is not None:
            self._logbook.discard()

    def _lost(self) -> None:
        self._forget()
        self._announce(ClaimLost(self.claim.request_id, self.claim.attempt))

    # --- ending early

    def abort(self, reason: Abort) -> None:
        """End it: disconnect, a moment later cancellation; after a grace period the job is settled regardless."""
        if self._reason is not None or self._settled:
            return
        self._reason = reason
        self._deadline = math.inf
        self._stop_timer()
        self._replay.disconnect()
        self._timer = self._loop.call_later(POLITE, self._cancel)

    def _cancel(self) -> None:
        if self.task is None or self.task.done():
            return
        if in_wsgi_bridge(self.claim.request_id):
            self._give_up()
            return
        if self._application is not None and self._application.in_thread():
            self._application.cancel_next()
        else:
            self.task.cancel()
        self._timer = self._loop.call_later(GRACE, self._give_up)

    def _give_up(self) -> None:
        """Settle a job whose code does not end, for instance a thread. Its slot stays taken until it does."""
        if not self._settled:
            self._announce(Stuck(self.claim.request_id, self._loop.time() - self._since))
            self.settle_abort()

    def abandon(self) -> None:
        """At the end of a process: cancel what can be cancelled, without waiting for it."""
        self._forget()
        if self.task is not None and not in_wsgi_bridge(self.claim.request_id):
            self.task.cancel()
