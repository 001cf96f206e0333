"""The loop that sends webhooks: claims what is due, sends many at once, records each attempt and what follows from it."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from .background import GRACE, SHORTEST_WAIT, Rounds
from .backoff import exponential, scheduled
from .circuit import Outcome, outcome_of
from .errors import OutboundBusy, OutboundError, OutboundRefused, OutboundShortage, OutboundUnreached
from .events import Announce, CircuitClosed, CircuitOpened, Delivered, DeliveryDead, DeliveryFailed, Outage, Trouble
from .letter import ResultGone, Scribe
from .models import Result, Standing
from .outbound import Answer, Outbound
from .outbox import Outbox
from .settings import Settings
from .signing import Signer
from .store import Store, Topic
from .value import Value
from .verdict import follow_up, trouble
from .waitingroom import WaitingRoom
from .webhooks import Attempt, Delivery, Room, Settled

LIMIT = 256
"""Attempts at once in this process, at most; each holds a connection and no more than some 256 KiB."""
_STRANGERS = 0.75
"""Share of them for hosts that are not known to be well: those that are never wait for the others."""
_FILES = 0.25
"""Share of the files that this process may open."""
_SOON = 30.0
"""Seconds after which an attempt that could not be made is made, at most."""
REFUSALS = 3
"""Attempt whose refusal by the guard is the last: a name may have an address that is not public for a moment, not for hours."""


class _Verdict(Value, frozen=True):
    """What came of an attempt."""

    answer: Answer | None = None
    error: str | None = None
    retry_in: float | None = None
    outcome: Outcome | None = None


class DeliveryEngine:
    """Sends webhooks until it is told to stop. `run` in a task of its own; `stop` from the same event loop, repeatable.

    `clock` gives Unix seconds for signatures and records. `grace` is how many seconds running attempts get when it stops; what
    is not ended then is sent again after its lease, by whoever runs then: at least once.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        tasks: WaitingRoom,
        outbound: Outbound,
        signer: Signer,
        settings: Settings,
        announce: Announce,
        *,
        clock: Callable[[], float] = time.time,
        limit: int | None = None,
        grace: float = GRACE,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._outbound = outbound
        self._scribe = Scribe(store, tasks, signer, settings, clock)
        self._schedule = settings.webhook_schedule
        self._announce = announce
        self._clock = clock
        self._slots = _Slots(limit or _affordable())
        self._rounds = Rounds(self._claim, partial(Trouble, "delivery", announce), grace=grace)
        self._shortages = 0
        """Attempts in a row that this process lacked something for."""
        self._full = False
        self._held_back: frozenset[str] = frozenset()
        self._left: set[str] = set()
        store.subscribe(Topic.DELIVERY, self._rounds.wake)

    async def run(self) -> None:
        """Work until `stop`; ends when the running attempts have ended or were given up."""
        await self._rounds.run()

    def stop(self) -> None:
        """Claim nothing more; `run` ends soon."""
        self._rounds.stop()

    def hurry(self) -> None:
        """Wait for nothing any more when stopping. Repeatable."""
        self._rounds.hurry()

    def wake(self) -> None:
        """Claim what is due now: the clock may have moved."""
        self._rounds.wake()

    def tokens(self) -> list[int]:
        """Of the attempts on their way; called from another thread."""
        return self._rounds.tokens()

    # --- claiming

    async def _claim(self) -> float | None:
        """Start what is due. See `background.Rounds`."""
        if self._slots.room() is None:
            self._full = True
            return None  # the first attempt that ends wakes us
        # Asked first, because it only reads: a claim waits for its turn to write even when there is nothing to do.
        due = await self._store.next_due(Topic.DELIVERY)
        if due is None or due > 0:
            return due
        # From here on places that become free are counted: those from before are in this room already.
        room = self._slots.room()
        assert room is not None  # noqa: S101 - attempts are begun by nobody else
        self._left.clear()
        claimed = await self._outbox.claim(room)
        self._full, self._held_back = claimed.full, claimed.held_back
        if (self._full and self._left) or not self._held_back.isdisjoint(self._left):
            self._rounds.wake()  # a place became free behind the back of this claim
        for delivery in claimed.deliveries:
            self._start(delivery, claimed.results.get(delivery.key))
        return None if claimed.next_in is None else max(claimed.next_in, SHORTEST_WAIT)

    def _start(self, delivery: Delivery, result: Result | None) -> None:
        self._slots.take(delivery)
        work, name = self._deliver(delivery, result), f"webhook {delivery.request_id}"
        # Its place once more, because one that is cancelled before its first step cannot give it back.
        self._rounds.begin(work, name, delivery.token, lambda: self._vacate(delivery))

    def _vacate(self, delivery: Delivery) -> None:
        """Its place on the wire is free, whatever the database does with the outcome. Repeatable."""
        if not self._slots.give_back(delivery):
            return
        self._left.add(delivery.host)
        if self._full or delivery.host in self._held_back:
            self._rounds.wake()

    # --- one attempt

    async def _deliver(self, delivery: Delivery, result: Result | None) -> None:
        """One attempt, from the stored result to its record. It raises nothing: the other attempts must not end with it."""
        at, began = self._clock(), time.monotonic()
        try:
            verdict = await self._try(delivery, result)
        except OutboundBusy as busy:
            await self._put_off(delivery, busy)
            return
        finally:
            self._vacate(delivery)
        self._shortages = 0
        del result
        answer = verdict.answer
        attempt = Attempt(
            at=int(at * 1000),
            duration=time.monotonic() - began,
            status=answer.status if answer else None,
            error=verdict.error,
            answer=answer.body if answer else b"",
        )
        await self._settle(delivery, attempt, verdict)

    async def _try(self, delivery: Delivery, result: Result | None) -> _Verdict:
        began = time.monotonic()
        again = scheduled(self._schedule, delivery.tries)
        try:
            headers, body = await self._scribe.write(delivery, result)
            answer = await self._outbound.post(delivery.url, headers, body)
        except ResultGone:
            return _Verdict(error="the result is gone")
        except OutboundBusy:
            raise
        except OutboundRefused as refused:  # it says nothing about the host
            final = refused.is_final or delivery.tries >= REFUSALS
            return _Verdict(error=refused.detail, retry_in=None if final else again)
        except OutboundUnreached as failed:
            return _Verdict(error=failed.detail, retry_in=again, outcome=Outcome.UNREACHED)
        except OutboundError as failed:
            return _Verdict(error=failed.detail, retry_in=again, outcome=Outcome.FAILED)
        except Exception as unexpected:
            self._announce(Outage("delivery", unexpected, 0.0))
            return _Verdict(error=f"not sent: {type(unexpected).__name__}", retry_in=again)
        return _Verdict(
            answer=answer,
            error=trouble(answer.status, answer.headers, delivery.url),
            retry_in=follow_up(answer.status, answer.headers, delivery.tries, self._schedule, self._clock()),
            outcome=outcome_of(answer.status, time.monotonic() - began),
        )

    async def _put_off(self, delivery: Delivery, busy: OutboundBusy) -> None:
        """It was not sent, for no fault of the receiver: the attempt is not charged, and is made soon."""
        self._shortages += isinstance(busy, OutboundShortage)
        wait = exponential(self._shortages, longest=_SOON) if self._shortages else exponential(1, first=_SOON, longest=_SOON)
        await self._rounds.insist(lambda: self._outbox.release([delivery.token], due_in=wait))

    async def _settle(self, delivery: Delivery, attempt: Attempt, verdict: _Verdict) -> None:
        """Record, over outages too: as long as this process lives the lease is renewed, so nobody else would do it."""
        settled = await self._rounds.insist(
            lambda: self._outbox.settle(
                delivery, attempt, delivered=verdict.error is None, retry_in=verdict.retry_in, outcome=verdict.outcome
            )
        )
        if settled:
            self._tell(delivery, attempt, verdict, settled)

    def _tell(self, delivery: Delivery, attempt: Attempt, verdict: _Verdict, settled: Settled) -> None:
        if attempt.error is None:
            self._announce(Delivered(delivery, attempt))
        else:
            # Of news that were overtaken by newer ones nothing was lost, and they are not tried again.
            self._announce(DeliveryFailed(delivery, attempt, None if settled.superseded else verdict.retry_in))
            if verdict.retry_in is None:
                self._announce(DeliveryDead(delivery, attempt.error))
        for other in settled.given_up:
            self._announce(DeliveryDead(other, "its host has been failing for as long as the whole schedule takes"))
        self._tell_of_circuits(delivery, settled)

    def _tell_of_circuits(self, delivery: Delivery, settled: Settled) -> None:
        """Once, and of all of the host rather than of a part of it."""
        for change, submitter in ((settled.of_host, None), (settled.change, delivery.flow.partition(" ")[2])):
            if change is not None and Standing.OPEN in change:
                if change[1] is Standing.OPEN:
                    self._announce(CircuitOpened(delivery.host, settled.pause, submitter))
                else:
                    self._announce(CircuitClosed(delivery.host, submitter))
                return


class _Slots:
    """How many attempts are on their way, and where to."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._most_strangers = max(1, int(limit * _STRANGERS))
        self._busy: Counter[str] = Counter()
        self._taken: set[int] = set()
        self._strangers = 0

    def room(self) -> Room | None:
        """What may be begun now; None for nothing."""
        if len(self._taken) >= self._limit:
            return None
        return Room(self._limit - len(self._taken), max(0, self._most_strangers - self._strangers), dict(self._busy))

    def take(self, delivery: Delivery) -> None:
        """An attempt begins."""
        self._taken.add(delivery.token)
        self._busy[delivery.flow] += 1
        self._strangers += delivery.standing is not Standing.GOOD

    def give_back(self, delivery: Delivery) -> bool:
        """It has its answer, or will not get one. False when that was said before."""
        if delivery.token not in self._taken:
            return False
        self._taken.remove(delivery.token)
        self._busy[delivery.flow] -= 1
        if not self._busy[delivery.flow]:
            del self._busy[delivery.flow]
        self._strangers -= delivery.standing is not Standing.GOOD
        return True


def _affordable() -> int:
    """As many as leave the application enough files to open."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LIMIT if most == resource.RLIM_INFINITY else max(1, min(LIMIT, int(most * _FILES)))
