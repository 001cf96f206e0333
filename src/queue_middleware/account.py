"""What one attempt tells the store: what its handler says meanwhile, and, once, how it ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from .backoff import exponential
from .ends import Loss
from .errand import Errand
from .errors import QueueError
from .events import AttemptFailed, ClaimLost, Finished, JobAwaiting
from .logbook import Logbook
from .logline import now, retry_line
from .models import Claim, Failure, JobState, StoredResponse
from .replay import Replay
from .retry import Again, attempts_allowed, grown, judge
from .store import Store
from .surroundings import Surroundings

_Held = bool | JobState | None
"""Whether a claim was still held; of one that may wait, where its job stands, or None."""


class Account:
    """`on_told` is called when the store knows the end, or knows it already from others."""

    # What most attempts never change lies in the class: one is made for every request.
    replay: Replay
    """Of the same attempt, which sets it."""
    errand: Errand | None = None
    is_settled = False
    """Whether the end has been told, or is being told."""
    is_telling = False
    settling: asyncio.Task[None] | None = None
    """What may have to be waited for."""
    _outcome: StoredResponse | Failure
    _logbook: Logbook | None = None

    def __init__(self, claim: Claim, around: Surroundings, on_told: Callable[[], None]) -> None:
        self.claim = claim
        self._around = around
        self._store = around.store
        self._announce = around.emit
        self._loop = around.loop
        self._on_told = on_told
        self.since = around.loop.time()
        if claim.task is not None:
            self.errand = Errand(claim, claim.task, around)
            self.claim = self.errand.claim

    # --- what the handler says: see `jobcontext.Replaying`

    @property
    def queue(self) -> Store:
        """See `jobcontext.Replaying`."""
        return self._store

    def logbook(self) -> Logbook | None:
        """See `jobcontext.Replaying`. Made by the first word; none when the attempt is over, for then nobody would close it."""
        shelf = self._around.shelf
        if os.getpid() != shelf.process:
            return None
        if self._logbook is None and not self.is_settled:
            with shelf.opening:
                self._logbook = self._logbook or Logbook(self.claim, shelf)
                if self.errand is not None:
                    self._logbook.hide(self.errand.secret)
        return None if self.is_settled else self._logbook

    def _behind_lines(self, verb: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
        """A verb that gives the claim away, after everything that was said has been stored."""
        return verb if self._logbook is None else self._logbook.before(verb, wait=True)

    # --- waiting for somebody outside

    def callback_url(self) -> str:
        """See `jobcontext.Replaying`."""
        if os.getpid() != self._around.shelf.process:
            raise RuntimeError("this process was forked from the one that handles the request; ask for callback_url there")
        with self._around.shelf.opening:
            if self.is_settled:
                raise RuntimeError("the request has its answer; ask for callback_url before you give it")
            if self.errand is None:
                self.errand = Errand.on_demand(self.claim, self._around)
            url = self.errand.callback_url(self.replay)
            if self._logbook is not None:
                self._logbook.hide(self.errand.secret)
            return url

    async def _expected(self) -> None:
        """Before the claim is given back: who was told the callback URL has to find the job by it."""
        if self.errand is not None:
            await self.errand.expected()

    # --- the end

    def settle(self, outcome: StoredResponse | Failure) -> None:
        """Tell the store how it ended, once. Nobody waits for it: an application's own time limit must not interrupt it."""
        if self.is_settled:
            return
        again = judge(outcome, self.claim.attempt, self.claim.retry)
        self.is_settled = self.is_telling = True
        self._outcome = outcome
        if again is not None:
            self.settling = self._loop.create_task(self._repeat(outcome, again))
            return
        if self._logbook is not None:
            self.settling = self._loop.create_task(self._finish_after(None))
            return
        try:
            self._finish(self._on_result)
        except QueueError as error:
            self._on_result(error)

    def _finish(self, told: Callable[[_Held | QueueError], None] | None = None) -> Awaitable[_Held]:
        outcome = self._outcome
        if self.errand is not None:
            return self.errand.conclude(outcome, told)
        if isinstance(outcome, Failure):
            return self._store.fail(self.claim, outcome, told)
        return self._store.complete(self.claim, outcome, told)

    def _on_result(self, held: _Held | QueueError) -> None:
        if isinstance(held, QueueError):
            self.settling = self._loop.create_task(self._finish_after(held))
        else:
            self._on_finished(held)

    async def _finish_after(self, error: QueueError | None) -> None:
        finish = self._finish if self._logbook is None else self._logbook.before(self._finish)
        self._on_finished(await self._around.insist(error, finish))

    def _on_finished(self, held: _Held) -> None:
        claim = self.claim
        if held is JobState.WAITING:
            self._announce(JobAwaiting(claim.request_id, claim.attempt))
        elif held:
            self._announce(Finished.of(claim.request_id, claim.attempt, self._outcome, self._loop.time() - self.since))
        else:
            self.lost()
        self.is_telling = False
        self._on_told()

    async def _repeat(self, outcome: StoredResponse | Failure, again: Again) -> None:
        claim = self.claim
        delay = self._pause() if again.after is None else again.after
        retry = self._behind_lines(self._store.retry)
        reason = outcome.detail if isinstance(outcome, Failure) else f"status {outcome.status}"
        ended = f"failed: {reason}" if isinstance(outcome, Failure) else f"ended with {reason}"
        line = retry_line(now() // 1000, claim.attempt, attempts_allowed(again.cause, claim.retry), ended, delay)
        await self._expected()
        if await self._around.insist(None, lambda: retry(claim, delay, line)):
            self._announce(AttemptFailed(claim.request_id, claim.attempt, reason, delay))
        else:
            self.lost()
        self.is_telling = False
        self._on_told()

    def _pause(self) -> float:
        kind = self.claim.retry.backoff
        return exponential(self.claim.attempt) if kind is None else grown(kind, self.claim.attempt)

    def hand_back(self) -> None:
        """Let somebody else run it, unless its end has been told. Repeatable."""
        if not self.is_settled:
            self.is_settled = self.is_telling = True
            self.settling = self._loop.create_task(self._release())

    async def _release(self) -> None:
        release = self._behind_lines(self._store.release)
        await self._expected()
        await self._around.insist(None, lambda: release(self.claim))
        self.is_telling = False
        self._on_told()

    def lose(self, loss: Loss) -> None:
        """The attempt ends this process, and is charged for it. Nothing waits for that: the event loop is about to end."""
        if not self.is_settled:
            self.forget()
            self._store.lose(self.claim, loss)

    def forget(self) -> None:
        """Say nothing more of it to the store."""
        self.is_settled = True
        if self._logbook is not None:
            self._logbook.discard()

    def part(self) -> None:
        """The attempt is over, and knows of nobody any more."""
        del self._on_told, self.replay

    def lost(self) -> None:
        """It is somebody else's by now."""
        self.forget()
        self._announce(ClaimLost(self.claim.request_id, self.claim.attempt))
