"""Sends webhooks: claims what is due, sends many at once, and records each attempt and what follows from it."""

from __future__ import annotations

import resource
import secrets
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial

from queue_middleware.background import DRAIN_TIMEOUT, SHORTEST_WAIT, ClaimLoop
from queue_middleware.backoff import exponential
from queue_middleware.errors import OutboundBusy, OutboundError, OutboundShortage, QueueError
from queue_middleware.events import Emit, ServiceError
from queue_middleware.events.error_streak import ErrorStreak
from queue_middleware.instrumentation import Instruments
from queue_middleware.jobs.models import Claim, JobResult, StoredResponse
from queue_middleware.jobs.store import JobStore, Topic
from queue_middleware.outbound.client import HTTPClient, Response

from .body import ResultExpired, is_long
from .circuit import AttemptOutcome
from .fairness import QUICK_SECONDS, DispatchSlots, flow_of
from .instrumented import post_inside
from .message import MessageBuilder
from .models import DeliveryAttempt, DeliveryClaim, ReceiverHealth, receiver_host
from .reporting import report_attempt
from .retry import AttemptDecision, FailureCause, decide_error, decide_response
from .store import WebhookStore

LIMIT = 256
"""Attempts at once in this process; each holds a connection and at most about 256 KiB."""
_FILES_SHARE = 0.25
"""Share of the files that this process may open."""
_MAX_BUSY_WAIT = 30.0
"""Seconds until an attempt that could not be made is tried again, at most."""


class Dispatcher:
    """Sends webhooks until `stop`. Call `run` in a task of its own, and `stop` from the same event loop, any number of times.

    `schedule` has the seconds between attempts. `clock` returns Unix seconds for the records of attempts. At `stop`, running
    attempts have `grace` seconds; an attempt that has not ended then is made again after its lease, by any process.
    """

    def __init__(
        self,
        store: JobStore,
        outbox: WebhookStore,
        outbound: HTTPClient,
        messages: MessageBuilder,
        schedule: tuple[float, ...],
        emit: Emit,
        *,
        clock: Callable[[], float] = time.time,
        limit: int | None = None,
        grace: float = DRAIN_TIMEOUT,
        instruments: Instruments | None = None,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._outbound = outbound
        self._messages = messages
        self._schedule = schedule
        self._emit = emit
        self._clock = clock
        self._instruments = instruments
        self._slots = DispatchSlots(limit or _default_limit())
        self._loop = ClaimLoop(self._claim, partial(ErrorStreak, "delivery", emit), grace=grace)
        self._shortages = 0
        """Attempts in a row for which this process lacked a resource."""
        self._full = False
        self._limited_hosts: frozenset[str] = frozenset()
        self._freed_hosts: set[str] = set()
        """Hosts of the slots that became free since the last claim began."""
        self._waiting: dict[int, tuple[DeliveryClaim, JobResult | None]] = {}
        """Claimed deliveries that wait for a slot, by token, the longest waiting first."""
        store.subscribe(Topic.DELIVERY, self._loop.wake)
        outbox.send_directly(self)

    async def run(self) -> None:
        """Work until `stop`. Returns when the running attempts have ended or were given up."""
        try:
            await self._loop.run()
        finally:
            if withdrawn := self._withdraw():
                # Only once: after a cancellation nothing may hold up the end, and closing the store releases them as well.
                with suppress(QueueError):
                    await self._outbox.release(withdrawn)

    def stop(self) -> None:
        """Claim nothing more; `run` returns soon."""
        self._loop.stop()

    def hurry(self) -> None:
        """Do not wait for running attempts at `stop`. May be called repeatedly."""
        self._loop.hurry()

    def wake(self) -> None:
        """Claim what is due now: the clock may have moved."""
        self._loop.wake()

    def tokens(self) -> list[int]:
        """Tokens of all claimed deliveries. May be called from another thread."""
        return list(self._waiting.copy()) + self._loop.tokens()  # in the order in which they move, so that none is left out

    # --- claiming

    async def _claim(self) -> float | None:
        """Start what is due. Returns the seconds until more is; None to wait for a wakeup."""
        if self._slots.free() is not None and self._limited_hosts.isdisjoint(self._freed_hosts):
            # First a read: a claim waits for the write lock even if nothing is due.
            due = await self._store.next_due(Topic.DELIVERY)
            if due is None or due > 0:
                self._full, self._limited_hosts = False, frozenset()  # no longer: what was due has been sent
                return due
        room = self._slots.free()
        if room is None:
            self._full = True
            return None  # the first attempt that ends wakes the loop
        # From here on slots that become free are noted, because `room` does not include them.
        self._freed_hosts.clear()
        claimed = await self._outbox.claim(room)
        self._full, self._limited_hosts = claimed.full, claimed.limited_hosts
        if (self._full and self._freed_hosts) or not self._limited_hosts.isdisjoint(self._freed_hosts):
            self._loop.wake()  # a slot became free during this claim
        for delivery in claimed.deliveries:
            self._slots.take(delivery)
            self._start(delivery, claimed.results.get(delivery.key))
        return None if claimed.next_in is None else max(claimed.next_in, SHORTEST_WAIT)

    def _start(self, delivery: DeliveryClaim, result: JobResult | None) -> None:
        """Start an attempt, or let it wait for a slot."""
        if self._slots.begin(delivery):
            self._spawn(delivery, result)
        else:
            self._waiting[delivery.token] = delivery, result

    def _spawn(self, delivery: DeliveryClaim, result: JobResult | None) -> None:
        work, name = self._deliver(delivery, result), f"webhook {delivery.request_id}"
        # The slot is given back here too: a task that is cancelled before its first step cannot do it.
        self._loop.spawn(work, name, delivery.token, lambda: self._free_slot(delivery))

    def _free_slot(self, delivery: DeliveryClaim, *, quick: bool = False) -> None:
        """Give back the slot, even before the outcome is stored. May be called repeatedly."""
        if not self._slots.give_back(delivery, quick=quick):
            return
        # The next claim begins when nothing waits for this slot any more, so that it starts many at once.
        if self._waiting and self._loop.is_working and self._start_waiting() == delivery.host:
            return
        self._freed_hosts.add(delivery.host)
        if self._full or delivery.host in self._limited_hosts:
            self._loop.wake()

    def _start_waiting(self) -> str | None:
        """Start the first waiting delivery for which the slot that became free is the one that it needs. Returns its host."""
        for token, (delivery, result) in self._waiting.items():
            if self._slots.begin(delivery):
                self._spawn(delivery, result)
                del self._waiting[token]
                return delivery.host
        return None

    def _withdraw(self, host: str | None = None) -> list[DeliveryClaim]:
        """Let nothing start that waits for a slot of this host, or of any. Returns the deliveries, which are to be released."""
        withdrawn = [delivery for delivery, _ in self._waiting.values() if host in (None, delivery.host)]
        for delivery in withdrawn:
            del self._waiting[delivery.token]
            self._slots.give_back(delivery)
        return withdrawn

    async def _release(self, claimed: Collection[DeliveryClaim]) -> None:
        """Hand back deliveries that were not started, which any process may claim again."""
        if claimed:
            await self._loop.retry_until_stop(lambda: self._outbox.release(claimed))

    # --- webhooks that are claimed when their job is completed

    def reserve(self, claim: Claim, response: StoredResponse) -> DeliveryClaim | None:
        """Take a slot for an ordinary webhook whose receiver is expected to be healthy; the store checks that."""
        url = claim.webhook
        if url is None or claim.task is not None or claim.webhook_kinds or is_long(response) or not self._loop.is_working:
            return None
        host = receiver_host(url)
        flow = flow_of(host, claim.client)
        if self._full or host in self._limited_hosts or not self._slots.has_room(flow, host):
            return None
        token = secrets.randbits(63)
        health, now = ReceiverHealth.HEALTHY, int(self._clock() * 1000)
        delivery = DeliveryClaim(
            0, token, url, host, 1, claim.key, claim.request_id, health=health, flow=flow, trace=claim.trace, since=now
        )
        self._slots.take(delivery)
        return delivery

    def start(self, delivery: DeliveryClaim, result: JobResult) -> None:
        """Make the first attempt. If the loop was stopped meanwhile, the delivery is made when its lease has been released."""
        if self._loop.is_working:
            self._start(delivery, result)
        else:
            self._free_slot(delivery)

    def give_back(self, delivery: DeliveryClaim) -> None:
        """Free a reserved slot."""
        self._free_slot(delivery)

    # --- one attempt

    async def _deliver(self, delivery: DeliveryClaim, result: JobResult | None) -> None:
        """Make one attempt and record it. Raises nothing, because that would end the other attempts."""
        at, started = self._clock(), time.monotonic()
        quick, withdrawn = False, list[DeliveryClaim]()
        try:
            response, decision = await self._send(delivery, result)
            if decision.outcome is AttemptOutcome.PROMPT:
                quick = time.monotonic() - started <= QUICK_SECONDS
            elif decision.outcome is not None:
                withdrawn = self._withdraw(delivery.host)
        except OutboundBusy as busy:
            await self._postpone(delivery, busy)
            return
        finally:
            self._free_slot(delivery, quick=quick)
        self._shortages = 0
        del result  # frees the body before settling, which may wait for the store
        attempt = DeliveryAttempt(
            at=int(at * 1000),
            duration=time.monotonic() - started,
            status=response.status if response else None,
            error=decision.error,
            response_body=response.body if response else b"",
        )
        await self._settle(delivery, attempt, decision)
        await self._release(withdrawn)

    async def _send(self, delivery: DeliveryClaim, result: JobResult | None) -> tuple[Response | None, AttemptDecision]:
        """Raises `OutboundBusy` if no attempt could be made."""
        started = time.monotonic()
        try:
            headers, body = await self._messages.build(delivery, result)
            if self._instruments is None:
                response = await self._outbound.post(delivery.url, headers, body)
            else:
                response = await post_inside(self._instruments, self._outbound, delivery, headers, body)
        except ResultExpired:
            return None, AttemptDecision(error="the result is no longer stored", cause=FailureCause.NOT_SENT)
        except OutboundBusy:
            raise
        except Exception as error:
            if not isinstance(error, OutboundError):
                self._emit(ServiceError("delivery", error, 0.0))
            return None, decide_error(error, delivery.tries, self._schedule)
        decision = decide_response(
            response.status,
            response.headers,
            time.monotonic() - started,
            url=delivery.url,
            tries=delivery.tries,
            schedule=self._schedule,
            now=self._clock(),
        )
        return response, decision

    async def _postpone(self, delivery: DeliveryClaim, busy: OutboundBusy) -> None:
        """Nothing was sent, and the receiver is not the cause: the attempt is not counted, and is made soon."""
        self._shortages += isinstance(busy, OutboundShortage)
        if self._shortages:
            wait = exponential(self._shortages, longest=_MAX_BUSY_WAIT)
        else:
            wait = exponential(1, first=_MAX_BUSY_WAIT, longest=_MAX_BUSY_WAIT)
        await self._loop.retry_until_stop(lambda: self._outbox.release([delivery], due_in=wait))

    async def _settle(self, delivery: DeliveryClaim, attempt: DeliveryAttempt, decision: AttemptDecision) -> None:
        """Record the attempt, retrying in a store outage: this process renews the lease, so no other one would record it."""
        settled = await self._loop.retry_until_stop(
            lambda: self._outbox.settle(
                delivery, attempt, delivered=decision.error is None, retry_in=decision.retry_in, outcome=decision.outcome
            )
        )
        if settled:
            report_attempt(self._emit, delivery, attempt, decision, settled)


def _default_limit() -> int:
    """`LIMIT`, or fewer if this process may open few files, so that the application has enough of them."""
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LIMIT if soft_limit == resource.RLIM_INFINITY else max(1, min(LIMIT, int(soft_limit * _FILES_SHARE)))
