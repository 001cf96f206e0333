"""One attempt at one job: calls the application, has the end of it told, and can be ended early."""

from __future__ import annotations

import asyncio
import math
from contextvars import Context
from enum import StrEnum
from typing import Any, Protocol

from .account import Account
from .bridges import Call, in_wsgi_bridge
from .ends import CANCELLED, Loss
from .events import ApplicationError, AttemptStarted, ServiceError, SlotStuck
from .jobcontext import enter
from .models import Claim, ErrorType, Failure, StoredResponse
from .replay import AnswerTooLarge, App, NoAnswer, Replay
from .scope import build_scope
from .surroundings import Surroundings

POLITE = 0.1
"""Seconds between `http.disconnect` and the cancellation of the task: time to end by itself."""
GRACE = 5.0
"""Seconds for `finally` blocks after the cancellation; then the job is settled, though its slot stays taken."""
TAIL = 300.0
"""Seconds that a call may go on after its answer (background tasks) before its slot is given to others."""


class Abort(StrEnum):
    """Why an attempt is ended before its answer."""

    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"
    LOST = "lost"


class Vacate(Protocol):
    """Gives an attempt's slot to others."""

    def __call__(self, attempt: Attempt, *, still_running: bool = False) -> None:
        """Called when the task ends, and before that when its slot is no longer held for it."""


async def _called(app: App, scope: dict[str, Any], replay: Replay) -> None:
    """An application may also be a plain function that returns something else to await, or raises."""
    await app(scope, replay.receive, replay.send)


def _ends_the_process(error: BaseException) -> bool:
    """Whether it means the process, as Ctrl-C does. `SystemExit` does not: servers answer a handler that raises it with a 500.

    But out of a task of the handler's own both have ended the event loop already.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup((KeyboardInterrupt, SystemExit)) is not None
    return isinstance(error, KeyboardInterrupt)


class Attempt:
    """`run` is the body of its task."""

    # What most attempts never change lies in the class: one is made for every request.
    task: asyncio.Task[None] | None = None
    _application: Call | None = None
    _timer: asyncio.TimerHandle | None = None
    _reason: Abort | None = None
    _has_returned = False
    _deadline = math.inf

    def __init__(self, claim: Claim, around: Surroundings, vacate: Vacate) -> None:
        self._account = account = Account(claim, around, self._leave)
        self.claim = claim = account.claim
        self._around = around
        self._announce = around.emit
        self._loop = around.loop
        self._vacate = vacate
        most = around.settings.request_timeout
        wanted = account.errand and account.errand.task.spec.timeout
        # What a task wishes, but no more than the owner of the service gives to anybody.
        self._limit = min(wanted, most) if wanted else most
        self._replay = account.replay = Replay(claim.request, around.settings.max_response_body, self._flush, self._on_answer)

    @property
    def since(self) -> float:
        """When it was claimed, then when it began; by the event loop's clock."""
        return self._account.since

    def begin(self, context: Context) -> None:
        """Start its task. Its time counts from now; one that was ended meanwhile is only settled."""
        self._account.since = now = self._loop.time()
        if self._reason is None:
            self._deadline = now + self._limit
        self.task = self._loop.create_task(self.run(), context=context)

    async def run(self) -> None:
        """Call the application and settle. The slot is given back when both the call and the settlement are over."""
        claim = self.claim
        try:
            self._announce(AttemptStarted(claim.request_id, claim.attempt))
            error = None
            if self._reason is None:
                enter(self._account)
                error = await self._call()
            if self._reason is not None:
                self.settle_abort()
            elif not self._replay.complete:
                self._account.settle(self._replay.unfinished(error))
        except Exception as unforeseen:
            self._announce(ServiceError("attempt", unforeseen, 0))
            self._account.settle(Failure(ErrorType.RUNNER_SERVER_ERROR, "the queue failed to settle this request"))
        finally:
            self._stop_timer()
            self._has_returned = True
            self._leave()

    def _leave(self) -> None:
        if self._has_returned and not self._account.is_telling:
            self._vacate(self)
            self._part()

    def _part(self) -> None:
        """What belongs to an attempt knows each other. Parted, it is freed at once, and not by the garbage collector."""
        self.task = self._application = None
        self._account.part()
        self._replay.part()

    async def _call(self) -> BaseException | None:
        """Call the application; what it raised, if anything."""
        claim = self.claim
        scope = build_scope(claim.request, claim.request_id, claim.attempt, self._around.state)
        app = self._around.app if self._account.errand is None else self._account.errand.begin(self._replay)
        self._application = application = Call(_called(app, scope, self._replay))
        error = await application
        if error is None or isinstance(error, AnswerTooLarge):
            return None
        if _ends_the_process(error):
            self._account.lose(Loss.EXIT)
            raise error
        if isinstance(error, asyncio.CancelledError) and self._around.is_being_torn_down():
            self._account.forget()  # it is handed back, and run again
            raise error
        if self._reason is None and not isinstance(error, NoAnswer):
            self._announce(ApplicationError(claim.request_id, error))
        return error

    async def _flush(self, number: int, data: bytes) -> None:
        if not await self._around.insist(None, lambda: self._around.store.append(self.claim, number, data)):
            self.abort(Abort.LOST)

    def _on_answer(self, outcome: StoredResponse | Failure) -> None:
        """Settle at once; what the application does afterwards is its tail."""
        self._deadline = self._loop.time() + TAIL
        self._account.settle(outcome)

    def check_deadline(self, now: float) -> None:
        """Called every now and then: end what takes too long, and no longer hold a slot for a tail that does not end."""
        if now < self._deadline:
            return
        if not self._account.is_settled:
            self.abort(Abort.TIMEOUT)
        else:
            self._announce(SlotStuck(self.claim.request_id, now - self._account.since))
            self._deadline = math.inf
            self._vacate(self, still_running=True)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # --- settling

    @property
    def is_settled(self) -> bool:
        """Whether its end has been told, or is being told, to the store."""
        return self._account.is_settled

    def settle_abort(self) -> asyncio.Task[None] | None:
        """Settle an attempt that was ended early, by the reason of its end; what may have to be waited for. Repeatable."""
        account = self._account
        if self._reason is Abort.CANCELLED:
            account.settle(CANCELLED)
        elif self._reason is Abort.TIMEOUT:
            account.settle(Failure(ErrorType.REQUEST_TIMEOUT, f"the attempt took longer than {self._limit:g} s"))
        elif self._reason is Abort.SHUTDOWN:
            account.hand_back()
        elif not account.is_settled:
            account.lost()
        return account.settling

    # --- ending early

    def abort(self, reason: Abort) -> None:
        """End it: disconnect, a moment later cancellation; after a grace period the job is settled regardless."""
        if self._reason is not None or self._account.is_settled:
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
        if not self._account.is_settled:
            self._announce(SlotStuck(self.claim.request_id, self._loop.time() - self._account.since))
            self.settle_abort()

    def abandon(self) -> None:
        """At the end of a process: cancel what can be cancelled, without waiting for it."""
        self._account.forget()
        if self._application is None:
            # Cancelled before its first step it would never give its slot back; like this it ends there.
            self._reason = self._reason or Abort.LOST
        elif self.task is not None and not in_wsgi_bridge(self.claim.request_id):
            self.task.cancel()
