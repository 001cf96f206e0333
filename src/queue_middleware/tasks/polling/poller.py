"""Polls providers for tasks whose work they do: claims the polls that are due, runs several at once, settles each."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from functools import partial

from queue_middleware.asgi.headers import kept_headers
from queue_middleware.background import DRAIN_TIMEOUT, SHORTEST_WAIT, ClaimLoop, ThreadLimiter
from queue_middleware.errors import OutboundBusy, OutboundError, OutboundRefused
from queue_middleware.events import Emit, Finished, Polled, PollFailed, ResultReceived, ServiceError
from queue_middleware.events.error_streak import ErrorStreak
from queue_middleware.instrumentation import CallKind, CallWork, Instruments, inside
from queue_middleware.jobs.models import ErrorType, Failure, StoredResponse
from queue_middleware.jobs.store import JobStore, Topic
from queue_middleware.jobs.struct import Struct
from queue_middleware.syntax.hosts import origin_of
from queue_middleware.tasks.models import CompletionSource, ExternalResult, PollClaim, ResolveOutcome
from queue_middleware.tasks.secret_ids import SecretIds
from queue_middleware.tasks.store import TaskStore

from .request import PollClient, is_named, poll_headers
from .response import (
    MAX_REDIRECTS,
    Failed,
    FetchResult,
    PollError,
    PollOutcome,
    Redirected,
    Running,
    Succeeded,
    poll_urls,
    read_result,
    read_status,
)
from .schedule import PollLimiter, next_poll_delay
from .templates import StartResponse, TemplateError

MAX_CONCURRENT_POLLS = 8
"""Polls at once in this process; a response may be as large as the largest result."""
POLL_TIMEOUT = 45.0
"""Seconds for one poll with all its redirects and its result: less than the lease of a poll."""
_BUSY_DELAY = 5.0
"""Seconds until a poll that could not be sent is tried again."""


class _PollResult(Struct, frozen=True):
    """The outcome of a poll, and the response that it was read from, if there was one."""

    outcome: PollOutcome
    response: StoredResponse | None = None


class Poller:
    """Polls until it is stopped. `run` in a task of its own; `stop` from the same event loop, repeatable.

    `clock` returns the store's time in Unix seconds. `grace` is the number of seconds that running polls get after `stop`; one
    that is not settled by then is repeated after its lease, or as soon as this process has ended.
    """

    def __init__(
        self,
        jobs: JobStore,
        tasks: TaskStore,
        client: PollClient,
        secret_ids: SecretIds,
        emit: Emit,
        *,
        clock: Callable[[], float] = time.time,
        limit: int = MAX_CONCURRENT_POLLS,
        grace: float = DRAIN_TIMEOUT,
        instruments: Instruments | None = None,
    ) -> None:
        self._instruments = instruments
        self._jobs = jobs
        self._tasks = tasks
        self._client = client
        self._secret_ids = secret_ids
        self._emit = emit
        self._clock = clock
        self._limiter = PollLimiter(limit)
        self._lane = ThreadLimiter()
        self._loop = ClaimLoop(self._claim, partial(ErrorStreak, "poller", emit), grace=grace)
        jobs.subscribe(Topic.POLL, self._loop.wake)

    async def run(self) -> None:
        """Work until `stop`; ends when the running polls are settled or were given up."""
        await self._loop.run()

    def stop(self) -> None:
        """Claim nothing more; `run` ends soon."""
        self._loop.stop()

    def wake(self) -> None:
        """Claim what is due now: the clock may have moved."""
        self._loop.wake()

    def tokens(self) -> list[int]:
        """The tokens of the running polls. May be called from another thread."""
        return self._loop.tokens()

    def hurry(self) -> None:
        """After `stop`: cancel the running polls instead of waiting for them. Idempotent."""
        self._loop.hurry()

    async def _claim(self) -> float | None:
        """Begin the polls that are due. Returns the seconds until the next claim; None if nothing says when."""
        capacity = self._limiter.capacity()
        if capacity is None:
            return None  # the first poll that ends wakes the loop
        # A read first: a claim waits for its turn to write even if nothing is due.
        due = await self._jobs.next_due(Topic.POLL)
        if due is None or due > 0:
            return due
        # Capacity that has become free in the meantime has woken the loop, so the next claim uses it.
        claimed = await self._tasks.claim_polls(capacity)
        for poll in claimed.polls:
            self._limiter.begin(poll.token, poll.host)
            self._loop.spawn(self._run_poll(poll), f"poll {poll.request_id}", poll.token, partial(self._end, poll.token))
        return None if claimed.next_in is None else max(claimed.next_in, SHORTEST_WAIT)

    def _end(self, token: int) -> None:
        self._limiter.end(token)
        self._loop.wake()

    # --- one poll

    async def _run_poll(self, poll: PollClaim) -> None:
        """Send one poll and settle it. Raises nothing: other polls must not end because this one failed."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(POLL_TIMEOUT):
                polled = await self._send(poll)
        except TemplateError as error:
            polled = _PollResult(_cannot_poll(poll, str(error)), poll.start_response)
        except OutboundRefused as error:
            polled = _PollResult(_cannot_poll(poll, f"the provider cannot be polled: {error.detail}"))
        except OutboundBusy as error:
            if await self._postpone(poll):
                return
            polled = _PollResult(PollError(error.detail))
        except OutboundError as error:
            polled = _PollResult(PollError(error.detail))
        except TimeoutError:
            polled = _PollResult(PollError(f"no complete response within {POLL_TIMEOUT:g} s"))
        except Exception as error:
            self._emit(ServiceError("poller", error, 0.0))
            polled = _PollResult(PollError(f"not sent: {type(error).__name__}"))
        duration = time.monotonic() - began
        self._limiter.record_duration(poll.host, duration)
        await self._settle(poll, polled, duration)

    async def _send(self, poll: PollClaim) -> _PollResult:
        """Request the status, follow redirects, and fetch the result if it has a URL of its own."""
        start = await self._start_response(poll)
        urls = await self._lane.run(len(start.body), poll_urls, poll.config, start)
        url, is_result = urls.url, False
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._get(poll, url)
            size = len(response.body)
            if is_result:
                outcome = await self._lane.run(size, read_result, url, response, poll.failures)
            else:
                outcome = await self._lane.run(size, read_status, poll.config, urls, url, response, poll.failures)
            if not isinstance(outcome, FetchResult | Redirected):
                return _PollResult(outcome, response)
            url, is_result = outcome.url, is_result or isinstance(outcome, FetchResult)
        return _PollResult(PollError(f"more than {MAX_REDIRECTS} redirects"))

    async def _start_response(self, poll: PollClaim) -> StartResponse:
        """The target's response with its whole body."""
        chunks = [await self._jobs.response_chunk(poll.key, number) for number in range(poll.start_response.chunks)]
        body = b"".join((*chunks, poll.start_response.body))
        return StartResponse(poll.task.spec.target, poll.start_response.status, poll.start_response.headers, body)

    async def _get(self, poll: PollClaim, url: str) -> StoredResponse:
        spec = poll.task.spec
        headers = poll_headers(poll.config, spec.target, poll.credentials, url)
        work = CallWork(CallKind.POLL, poll.request_id, "GET", origin_of(url), poll.number, headers, label=spec.provider or "")
        if self._instruments is not None:
            work.is_named = is_named(poll.config, spec.target, url)
            work.trace = await self._instruments.trace_of(poll.key)
        with inside(self._instruments, work):
            response = await self._client.get(url, work.headers)
            work.status = response.status
        return response.replace(headers=kept_headers(response.headers), body=self._redact(poll, response.body))

    def _redact(self, poll: PollClaim, data: bytes) -> bytes:
        """Replace the callback id: providers often echo the URL that they were given, and the id must not be stored."""
        callback_id = self._secret_ids.callback_id_of(poll.task)
        return data if callback_id is None else data.replace(callback_id.encode(), b"*" * len(callback_id))

    def _redact_headers(self, poll: PollClaim, result: ExternalResult) -> ExternalResult:
        """Only in the final result: a `Location` that holds the id has to be followed as it is."""
        headers = tuple((name, self._redact(poll, value)) for name, value in result.response.headers)
        return result.replace(response=result.response.replace(headers=headers))

    # --- settling

    async def _postpone(self, poll: PollClaim) -> bool:
        """Poll later, without counting a failure, because nothing was sent. False if no time is left for that."""
        delay = next_poll_delay(_BUSY_DELAY, poll.deadline / 1000 - self._clock(), 0, (), 0.0)
        if delay is None:
            return False
        await self._loop.retry_until_stop(
            lambda: self._tasks.settle_poll(poll, next_in=delay, status=None, failures=poll.failures)
        )
        return True

    async def _settle(self, poll: PollClaim, polled: _PollResult, duration: float) -> None:
        """End the task, or schedule its next poll."""
        failures = poll.failures + 1 if isinstance(polled.outcome, PollError) else 0
        delay = self._next_delay(poll, polled.response, failures)
        result = _final_result(polled, is_last=delay is None)
        if result is None:
            await self._schedule(poll, polled.outcome, delay, failures)
        else:
            await self._resolve(poll, self._redact_headers(poll, result), duration)

    def _next_delay(self, poll: PollClaim, response: StoredResponse | None, failures: int) -> float | None:
        now = self._clock()
        interval, headers = poll.config.interval, response.headers if response else ()
        if _expects_call(poll) and not failures:
            # A provider that is expected to call back is polled only once more, at the deadline.
            interval, headers = math.inf, ()
        return next_poll_delay(interval, poll.deadline / 1000 - now, failures, headers, now)

    async def _resolve(self, poll: PollClaim, result: ExternalResult, duration: float) -> None:
        outcome = await self._loop.retry_until_stop(lambda: self._tasks.resolve(poll.key, CompletionSource.POLL, result))
        if outcome:
            self._emit(ResultReceived(poll.request_id, CompletionSource.POLL, outcome))
        if outcome is ResolveOutcome.ENDED:
            self._emit(Finished.of(poll.request_id, 0, result.failure or result.response, duration))

    async def _schedule(self, poll: PollClaim, outcome: PollOutcome, delay: float | None, failures: int) -> None:
        status = outcome.status if isinstance(outcome, Running) else None
        held = await self._loop.retry_until_stop(
            lambda: self._tasks.settle_poll(poll, next_in=delay, status=status, failures=failures)
        )
        if held and isinstance(outcome, PollError):
            self._emit(PollFailed(poll.request_id, poll.number, poll.task.spec.provider, outcome.error, delay or 0.0))
        elif held:
            self._emit(Polled(poll.request_id, poll.number, poll.task.spec.provider, status, delay or 0.0))


def _expects_call(poll: PollClaim) -> bool:
    return poll.task.spec.callback or poll.task.spec.signal


def _cannot_poll(poll: PollClaim, error: str) -> PollOutcome:
    """A provider that is expected to call back may still do so, even if it cannot be polled."""
    return PollError(error) if _expects_call(poll) else Failed(error)


def _final_result(polled: _PollResult, *, is_last: bool) -> ExternalResult | None:
    """How the task ends; None if it does not end yet. The last poll ends it as timed out."""
    outcome, response = polled.outcome, polled.response or StoredResponse(504, (), b"")
    if isinstance(outcome, Succeeded):
        return ExternalResult(outcome.response)
    if isinstance(outcome, Failed):
        return ExternalResult(response, Failure(ErrorType.PROVIDER_FAILED, outcome.error))
    return ExternalResult(response, Failure(ErrorType.WAIT_TIMEOUT, _timeout_text(outcome))) if is_last else None


def _timeout_text(outcome: PollOutcome) -> str:
    text = "the provider did not finish in time"
    if isinstance(outcome, PollError):
        return f"{text}; the last poll failed: {outcome.error}" + (f": {outcome.message}" if outcome.message else "")
    if isinstance(outcome, Running) and outcome.status is not None:
        return f"{text}; the last status was {outcome.status}"
    return text
