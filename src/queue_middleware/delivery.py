"""The loop that sends webhooks: claims what is due, sends several at once, records each attempt and what follows from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

from .backoff import exponential, scheduled
from .errors import OutboundError, UnknownRequest
from .events import Announce, Delivered, DeliveryFailed, Outage
from .models import Attempt, Delivery, Headers, JobState, Result
from .outbound import Answer, Outbound
from .settings import Settings
from .signing import Signer
from .store import Store, Topic
from .tasks import TaskRecord
from .wire import asyncqueue, standard, webhook

LIMIT = 16
"""Attempts at once in this process."""

_GRACE = 3.0
_LONGEST_WAIT = 30.0
_SHORTEST_WAIT = 0.01
_LONGEST_RETRY_AFTER = 86400.0
_LARGE = 256 * 1024
_LARGE_AT_ONCE = 2


class DeliveryEngine:
    """Sends webhooks until it is told to stop. `run` in a task of its own; `stop` from the same event loop, repeatable.

    `clock` gives Unix seconds for signatures and records. `grace` is how many seconds running attempts get when it stops; what
    is not ended then is sent again after its lease, by whoever runs then: at least once.
    """

    def __init__(
        self,
        store: Store,
        outbound: Outbound,
        signer: Signer,
        settings: Settings,
        announce: Announce,
        *,
        clock: Callable[[], float] = time.time,
        limit: int = LIMIT,
        grace: float = _GRACE,
    ) -> None:
        self._store = store
        self._outbound = outbound
        self._signer = signer
        self._schedule = settings.webhook_schedule
        self._announce = announce
        self._clock = clock
        self._limit = limit
        self._grace = grace
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._running: dict[asyncio.Task[None], int] = {}
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        store.subscribe(Topic.DELIVERY, self._wake.set)

    async def run(self) -> None:
        """Work until `stop`; ends when the running attempts have ended or were given up."""
        async with asyncio.TaskGroup() as group:
            outages = 0
            while not self._stopping.is_set():
                try:
                    wait = await self._claim(group)
                    outages = 0
                except Exception as error:
                    outages += 1
                    await self._outage(error, outages)
                else:
                    await _wait(self._wake, wait)
            await self._drain()

    def stop(self) -> None:
        """Claim nothing more; `run` ends soon."""
        self._stopping.set()
        self._wake.set()

    def tokens(self) -> list[int]:
        """Of the attempts on their way; called from another thread."""
        return list(self._running.copy().values())

    async def _claim(self, group: asyncio.TaskGroup) -> float | None:
        """Start what is due. Returns the seconds after which to look again if nothing wakes us before, None for not at all."""
        # Before looking: what becomes due while we look must not be missed.
        self._wake.clear()
        if self._stopping.is_set():
            return 0.0
        free = self._limit - len(self._running)
        if free == 0:
            return None  # the first attempt that ends wakes us
        # Asked first, because it only reads: a claim waits for its turn to write even when there is nothing to do.
        due = await self._store.next_due(Topic.DELIVERY)
        if due is None or due > 0:
            return _LONGEST_WAIT if due is None else min(due, _LONGEST_WAIT)
        claimed = await self._store.claim_deliveries(free)
        for delivery in claimed:
            self._start(group, delivery)
        return 0.0 if claimed else _SHORTEST_WAIT

    def _start(self, group: asyncio.TaskGroup, delivery: Delivery) -> None:
        task = group.create_task(self._deliver(delivery), name=f"webhook {delivery.request_id}")
        self._running[task] = delivery.token
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._wake.set()

    async def _drain(self) -> None:
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._grace)
            for task in late:
                task.cancel()

    async def _deliver(self, delivery: Delivery) -> None:
        """One attempt, from the stored result to its record. It raises nothing: the other attempts must not end with it."""
        at, began = self._clock(), time.monotonic()
        answer, error, retry_in = await self._try(delivery)
        attempt = Attempt(
            at=int(at * 1000),
            duration=time.monotonic() - began,
            status=answer.status if answer else None,
            error=error,
            answer=answer.body if answer else b"",
        )
        await self._settle(delivery, attempt, retry_in)

    async def _try(self, delivery: Delivery) -> tuple[Answer | None, str | None, float | None]:
        """The answer, what is wrong with it, and the seconds until the next attempt."""
        try:
            answer = await self._send(delivery)
        except _ResultGone:
            return None, "the result is gone", None
        except OutboundError as failed:
            return None, failed.detail, scheduled(self._schedule, delivery.attempt)
        except Exception as unexpected:
            self._announce(Outage("delivery", unexpected, 0.0))
            return None, f"not sent: {type(unexpected).__name__}", scheduled(self._schedule, delivery.attempt)
        return answer, _trouble(answer.status), follow_up(answer, delivery.attempt, self._schedule, self._clock())

    async def _send(self, delivery: Delivery) -> Answer:
        result = await self._result(delivery)
        response = result.response
        if response is None or (response.parts == 0 and len(response.body) <= _LARGE):
            body, headers = await self._written(delivery, result)
            return await self._outbound.post(delivery.url, headers, body)
        async with self._large:  # each is in memory several times over
            result = await self._with_parts(result)
            # Checking and signing megabytes would hold up everything else in this event loop.
            task = await self._task(result)
            body, headers = await asyncio.to_thread(self._write, delivery, result, task)
            del result
        return await self._outbound.post(delivery.url, headers, body)

    async def _result(self, delivery: Delivery) -> Result:
        """The result, its body perhaps still in parts. Raises `_ResultGone`."""
        try:
            result = await self._store.result(delivery.request_id)
        except UnknownRequest:
            raise _ResultGone from None
        if result.response is None and result.job.state is JobState.COMPLETED:
            raise _ResultGone
        return result

    async def _with_parts(self, result: Result) -> Result:
        """The result with its whole body in one piece. Raises `_ResultGone`."""
        response = result.response
        if response is None:
            return result
        try:
            earlier = [await self._store.output(result.job.key, number) for number in range(response.parts)]
        except UnknownRequest:
            raise _ResultGone from None
        return result.replace(response=response.replace(body=b"".join((*earlier, response.body)), parts=0))

    async def _written(self, delivery: Delivery, result: Result) -> tuple[bytes, Headers]:
        return self._write(delivery, result, await self._task(result))

    async def _task(self, result: Result) -> TaskRecord | None:
        """What else there is to tell of a task, its answer as it is in the result."""
        if not result.job.is_task:
            return None
        try:
            record = await self._store.waiting.record(result.job.request_id)
        except UnknownRequest:
            raise _ResultGone from None
        return record if result.response is None else record.replace(response=result.response)

    def _write(self, delivery: Delivery, result: Result, task: TaskRecord | None) -> tuple[bytes, Headers]:
        """Body and headers, signed for this moment: receivers refuse what was signed more than 300 s ago."""
        body = webhook.webhook_body(result) if task is None else asyncqueue.completion_body(task)
        user = webhook.user_id(result.job.identity)
        request_id, timestamp = delivery.request_id, str(int(self._clock()))
        signature = self._signer.sign(webhook.signed_message(request_id, user, timestamp, body))
        second = self._signer.sign(standard.signed_message(request_id, timestamp, body))
        return body, (
            (b"content-type", b"application/json"),
            (b"user-agent", b"queue-middleware"),
            *webhook.webhook_headers(request_id, user, timestamp, signature),
            *standard.webhook_headers(request_id, timestamp, [second]),
        )

    async def _settle(self, delivery: Delivery, attempt: Attempt, retry_in: float | None) -> None:
        """Record, over outages too: as long as this process lives the lease is renewed, so nobody else would do it."""
        delivered = attempt.error is None
        outages = 0
        while True:
            try:
                held = await self._store.settle(delivery, attempt, delivered=delivered, retry_in=retry_in)
                break
            except Exception as error:
                if self._stopping.is_set():
                    return
                outages += 1
                await self._outage(error, outages)
        if held:
            self._announce(Delivered(delivery, attempt) if delivered else DeliveryFailed(delivery, attempt, retry_in))

    async def _outage(self, error: Exception, number: int) -> None:
        pause = exponential(number, longest=_LONGEST_WAIT)
        self._announce(Outage("delivery", error, pause))
        await _wait(self._stopping, pause)


class _ResultGone(Exception):
    """Retention, or the submitter's wish, has taken what was to be delivered."""


def follow_up(answer: Answer, attempt: int, schedule: tuple[float, ...], now: float) -> float | None:
    """Seconds until the next attempt after this answer to attempt number `attempt`; None where there is none.

    A redirect and 410 are final. `Retry-After` of 429 and 503 can only make it later. `now` in Unix seconds.
    """
    if 200 <= answer.status < 400 or answer.status == 410:
        return None
    wait = scheduled(schedule, attempt)
    if wait is None or answer.status not in (429, 503):
        return wait
    return max(wait, retry_after(answer.headers, now))


def retry_after(headers: Headers, now: float) -> float:
    """Seconds of `Retry-After`, either form (RFC 9110 §10.2.3), at most a day; 0 where there is none that can be read."""
    text = next((value for name, value in headers if name == b"retry-after"), b"").decode("latin-1").strip()
    try:
        seconds = float(int(text)) if text.isdecimal() else _date(text) - now
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)


def _date(text: str) -> float:
    found = parsedate_to_datetime(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _trouble(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    return f"answered {status}; redirects are not followed" if 300 <= status < 400 else f"answered {status}"


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
