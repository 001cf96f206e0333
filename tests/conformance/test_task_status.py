"""The status by which a store selects tasks equals that of the function `task_status`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queue_middleware.jobs.models import Claim, ErrorType, Failure
from queue_middleware.jobs.store import JobStore
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.tasks.models import CompletionSource, TaskStatus
from queue_middleware.tasks.status import task_status
from tests.support.clock import ManualClock
from tests.support.factories import a_job, a_task, a_wait, a_word, an_answer

_POLL = PollConfig("{startResult.body.url}", "status", ("done",), ("failed",))
SPECS: dict[str, dict[str, Any]] = {
    "callback": {"callback": True},
    "signal": {"callback": False, "signal": True},
    "poll": {"callback": False, "poll": _POLL},
    "nothing": {"callback": False},
}
Way = Callable[[JobStore, ManualClock, Claim], Awaitable[None]]


def _answered(status: int) -> Way:
    async def way(store: JobStore, clock: ManualClock, claim: Claim) -> None:
        await store.tasks.complete_attempt(claim, claim.task, an_answer(status=status), None)

    return way


def _waits(poll_in: float | None, then: Way | None = None) -> Way:
    async def way(store: JobStore, clock: ManualClock, claim: Claim) -> None:
        await store.tasks.complete_attempt(claim, claim.task, an_answer(), a_wait(60.0, poll_in=poll_in, poll=_POLL))
        if then is not None:
            await then(store, clock, claim)

    return way


async def _running(store: JobStore, clock: ManualClock, claim: Claim) -> None:
    """Let the attempt continue."""


async def _retried(store: JobStore, clock: ManualClock, claim: Claim) -> None:
    await store.retry(claim, 60.0)


async def _failed(store: JobStore, clock: ManualClock, claim: Claim) -> None:
    await store.tasks.complete_attempt(claim, claim.task, Failure(ErrorType.RUNNER_SERVER_ERROR, "broken"), None)


async def _cancelled(store: JobStore, clock: ManualClock, claim: Claim) -> None:
    await store.cancel(claim.request_id)


async def _timed_out(store: JobStore, clock: ManualClock, claim: Claim) -> None:
    clock.advance(200)
    assert len(await store.tasks.time_out()) == 1


def _resolved(failure: Failure | None) -> Way:
    async def way(store: JobStore, clock: ManualClock, claim: Claim) -> None:
        await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, a_word(failure=failure))

    return way


WAYS: dict[str, tuple[Way, bool]] = {
    "running": (_running, False),
    "retried": (_retried, False),
    "completed": (_answered(200), False),
    "client error": (_answered(404), False),
    "server error": (_answered(500), False),
    "failed": (_failed, False),
    "awaiting": (_waits(None), False),
    "polled": (_waits(5.0), True),
    "timed out": (_waits(None, _timed_out), False),
    "cancelled": (_waits(None, _cancelled), False),
    "resolved": (_waits(None, _resolved(None)), False),
    "resolved as failed": (_waits(None, _resolved(Failure(ErrorType.PROVIDER_FAILED, "no"))), False),
}
"""What happens to a running task, and whether it is polled then."""


async def check(store: JobStore, request_id: str, *, is_polled: bool = False) -> TaskStatus:
    record = await store.tasks.record(request_id)
    job = record.job
    expected = task_status(
        record.spec,
        job.state,
        attempt=job.attempt,
        is_polled=is_polled,
        is_resolved=record.resolved_by is not None,
        status=job.status,
        error_type=None if job.failure is None else job.failure.error_type,
    )
    assert record.status is expected
    for status in TaskStatus:
        page = await store.tasks.page(job.client, status, limit=10, offset=0)
        assert page.total == (status is expected)
    return expected


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("way", WAYS)
async def test_the_status_of_a_task_follows_the_rule(store: JobStore, clock: ManualClock, spec: str, way: str) -> None:
    happens, is_polled = WAYS[way]
    receipt = await store.submit(a_job(task=a_task(**SPECS[spec])))
    assert await check(store, receipt.request_id) is TaskStatus.PENDING
    (claim,) = await store.claim(1)
    await happens(store, clock, claim)
    await check(store, receipt.request_id, is_polled=is_polled)


async def test_a_task_with_a_start_time_is_delayed(store: JobStore, clock: ManualClock) -> None:
    receipt = await store.submit(a_job(task=a_task(), due_at=clock.now + 60_000))
    assert await check(store, receipt.request_id) is TaskStatus.DELAYED
