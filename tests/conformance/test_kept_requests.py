"""Requests that are kept after the end of their job: which ones, in what form, and for how long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queue_middleware.errors import BadRequest, NotKept, UnknownRequest
from queue_middleware.jobs.job_detail import KeptRequest
from queue_middleware.jobs.job_list import JobFilter
from queue_middleware.jobs.kept_requests import KeepRequests, is_kept
from queue_middleware.jobs.models import CHUNK_SIZE, Claim, ErrorType, Failure, JobState, NewJob, StoredResponse
from queue_middleware.jobs.outcomes import CANCELLED, LOST, OVERDUE, WAIT_TIMED_OUT, LossReason
from queue_middleware.tasks.models import CompletionSource
from queue_middleware.tasks.polling.config import PollConfig
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import make_job, make_request, make_response, make_result, make_task, make_wait

FAILED = Failure(ErrorType.RUNNER_SERVER_ERROR, "broken")
BODY = b"x" * (2 * CHUNK_SIZE + 7)
HEADERS = ((b"authorization", b"Bearer secret"), (b"x-trace-1", b"a"), (b"accept", b"*/*"))
DAY = 86_400
Outcome = StoredResponse | Failure


class Situation:
    """One job in one store, and what can end it."""

    def __init__(self, store: Any, clock: ManualClock, new: NewJob, request_id: str) -> None:
        self.store, self.clock, self.new, self.request_id = store, clock, new, request_id

    async def claim(self) -> Claim:
        (claim,) = await self.store.claim(1)
        return claim

    async def wait(self) -> Claim:
        claim = await self.claim()
        assert claim.task is not None
        await self.store.tasks.complete_attempt(claim, claim.task, make_response(status=202), make_wait())
        return claim


async def complete(it: Situation) -> Outcome:
    await it.store.complete(await it.claim(), make_response())
    return make_response()


async def fail_with_status(it: Situation) -> Outcome:
    await it.store.complete(await it.claim(), make_response(status=500))
    return make_response(status=500)


async def fail(it: Situation) -> Outcome:
    await it.store.fail(await it.claim(), FAILED)
    return FAILED


async def end_unawaited(it: Situation) -> Outcome:
    claim = await it.claim()
    it.store.end(claim, FAILED, lambda result: None)
    await it.store.running_claims()
    await it.store.log(claim, [])  # in a later transaction
    return FAILED


async def cancel_queued(it: Situation) -> Outcome:
    await it.store.cancel(it.request_id)
    return CANCELLED


async def cancel_running(it: Situation) -> Outcome:
    claim = await it.claim()
    await it.store.cancel(it.request_id)
    await it.store.retry(claim, 0.0)
    return CANCELLED


async def expire_queued(it: Situation) -> Outcome:
    it.clock.advance(60)
    await it.store.expire()
    return OVERDUE


async def lose_the_last_attempt(it: Situation) -> Outcome:
    for _ in range(3):
        await it.store.lose(await it.claim(), LossReason.EXIT)
        it.clock.advance(10)
    return LOST


async def end_task_at_once(it: Situation) -> Outcome:
    claim = await it.claim()
    assert claim.task is not None
    await it.store.tasks.complete_attempt(claim, claim.task, FAILED, None)
    return FAILED


async def resolve_awaiting(it: Situation) -> Outcome:
    claim = await it.wait()
    await it.store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result())
    return make_response()


async def reject_awaiting(it: Situation) -> Outcome:
    claim = await it.wait()
    await it.store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result(failure=FAILED))
    return FAILED


async def reject_delayed(it: Situation) -> Outcome:
    claim = await it.claim()
    await it.store.retry(claim, 30.0)
    await it.store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result(failure=FAILED))
    return FAILED


async def reject_early(it: Situation) -> Outcome:
    claim = await it.claim()
    assert claim.task is not None
    await it.store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result(failure=FAILED))
    await it.store.tasks.complete_attempt(claim, claim.task, make_response(status=202), make_wait())
    return FAILED


async def cancel_awaiting(it: Situation) -> Outcome:
    await it.wait()
    await it.store.cancel(it.request_id)
    return CANCELLED


async def time_out(it: Situation) -> Outcome:
    await it.wait()
    it.clock.advance(30)
    await it.store.tasks.time_out()
    return WAIT_TIMED_OUT


ENDS: tuple[Callable[[Situation], Awaitable[Outcome]], ...] = (
    complete, fail_with_status, fail, end_unawaited, cancel_queued, cancel_running, expire_queued, lose_the_last_attempt,
    end_task_at_once, resolve_awaiting, reject_awaiting, reject_delayed, reject_early, cancel_awaiting, time_out,
)  # fmt: skip
"""Every way in which a job ends, and so every place at which its request is replaced or deleted."""


async def submit(stores: Stores, clock: ManualClock, mode: str = "all", options: Any = None, **fields: Any) -> Situation:
    store = await stores.open(keep_requests=mode, **(options or {}))
    new = make_job(BODY, task=make_task(), webhook="https://a.example/").replace(**fields)
    receipt = await store.submit(new.replace(start_timeout=60.0))
    return Situation(store, clock, new, receipt.request_id)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("mode", KeepRequests)
async def test_a_request_is_kept_by_its_outcome(stores: Stores, clock: ManualClock, mode: str, end: Any) -> None:
    it = await submit(stores, clock, mode)
    outcome = await end(it)
    found = await it.store.operations.detail(it.request_id)
    assert found.job.finished_at is not None
    if is_kept(KeepRequests(mode), outcome):
        kept = await it.store.operations.kept_request(it.request_id)
        assert (kept.job, kept.kept_until) == (it.new, found.job.finished_at + DAY * 1000)
        assert (found.request_bytes, found.kept_until) == (len(BODY), kept.kept_until)
    else:
        with pytest.raises(NotKept):
            await it.store.operations.kept_request(it.request_id)
        assert (found.request_bytes, found.kept_until) == (None, None)


async def test_several_kept_requests_are_read_at_once(stores: Stores, clock: ManualClock) -> None:
    kept = await submit(stores, clock, "all")
    other = await submit(stores, clock, "all")
    unknown = "00000000-0000-7000-8000-000000000000"
    first, missing, wrong, second = await kept.store.operations.kept_requests(
        [kept.request_id, unknown, "no id", other.request_id]
    )
    assert isinstance(missing, UnknownRequest)
    assert isinstance(wrong, BadRequest)
    assert (first, second) == (KeptRequest(kept.new, None), KeptRequest(other.new, None))


@pytest.mark.parametrize("end", ENDS)
async def test_a_request_that_asked_not_to_store_its_response_is_never_kept(
    stores: Stores, clock: ManualClock, end: Any
) -> None:
    it = await submit(stores, clock, unstored_response=True)
    await end(it)
    with pytest.raises(NotKept):
        await it.store.operations.kept_request(it.request_id)


async def test_the_request_of_an_awaiting_job_is_kept_until_its_outcome_is_known(stores: Stores, clock: ManualClock) -> None:
    it = await submit(stores, clock, "failed")
    await it.wait()
    kept = await it.store.operations.kept_request(it.request_id)
    assert (kept.job, kept.kept_until) == (it.new, None)
    assert (await it.store.operations.detail(it.request_id)).request_bytes == len(BODY)


async def test_without_the_option_the_request_of_an_awaiting_job_is_not_kept(stores: Stores, clock: ManualClock) -> None:
    it = await submit(stores, clock, "none")
    await it.wait()
    with pytest.raises(NotKept):
        await it.store.operations.kept_request(it.request_id)


@pytest.mark.parametrize("end", [resolve_awaiting, cancel_awaiting, time_out])
async def test_a_process_without_the_option_deletes_what_another_kept_for_a_wait(
    stores: Stores, clock: ManualClock, end: Any
) -> None:
    it = await submit(stores, clock)
    claim = await it.wait()
    it.store = await stores.open()

    async def wait() -> Claim:
        return claim

    it.wait = wait  # type: ignore[method-assign] # it waits already
    await end(it)
    with pytest.raises(NotKept):
        await it.store.operations.kept_request(it.request_id)


@pytest.mark.parametrize("end", [fail, cancel_queued, reject_awaiting])
async def test_headers_that_are_not_to_be_kept_are_left_out(stores: Stores, clock: ManualClock, end: Any) -> None:
    poll = PollConfig(
        url_template="https://provider.example/{id}",
        status_path="status",
        done_values=("done",),
        fail_values=(),
        headers={"Authorization": "Bearer secret", "Accept": "*/*"},
    )
    without = {"keep_without": "Authorization, X-Trace-*"}
    it = await submit(stores, clock, options=without, request=make_request(BODY, headers=HEADERS), task=make_task(poll=poll))
    await end(it)
    job = (await it.store.operations.kept_request(it.request_id)).job
    assert job.request.headers == ((b"accept", b"*/*"),)
    assert job.request.body == BODY
    assert job.task is not None
    assert job.task.spec.poll is not None
    assert job.task.spec.poll.headers == {"Accept": "*/*"}


async def test_the_headers_of_polls_are_kept(stores: Stores, clock: ManualClock) -> None:
    poll = PollConfig(
        url_template="https://provider.example/{id}",
        status_path="status",
        done_values=("done",),
        fail_values=(),
        headers={"Authorization": "Bearer secret"},
    )
    it = await submit(stores, clock, task=make_task(poll=poll))
    await fail(it)
    assert (await it.store.operations.kept_request(it.request_id)).job == it.new


async def test_a_repeated_write_of_the_end_keeps_nothing_twice(stores: Stores, clock: ManualClock) -> None:
    it = await submit(stores, clock, task=None)
    claim = await it.claim()
    assert await it.store.fail(claim, FAILED)
    assert await it.store.fail(claim, FAILED)
    assert (await it.store.operations.kept_request(it.request_id)).job == it.new


async def test_a_stale_claim_keeps_nothing(stores: Stores, clock: ManualClock) -> None:
    it = await submit(stores, clock, task=None)
    stale = await it.claim()
    await it.store.retry(stale, 0.0)
    claim = await it.claim()
    assert not await it.store.fail(stale, FAILED)
    assert (await it.store.operations.detail(it.request_id)).kept_until is None
    assert await it.store.fail(claim, FAILED)


async def test_a_kept_request_expires_before_its_job(stores: Stores, clock: ManualClock) -> None:
    it = await submit(stores, clock, options={"keep_requests_for": 100}, webhook=None)
    response = make_response(b"y" * (CHUNK_SIZE + 1), status=500)
    await it.store.complete(await it.claim(), response)
    clock.advance(99)
    assert not await it.store.prune(100)
    assert (await it.store.operations.kept_request(it.request_id)).job == it.new
    clock.advance(1)
    with pytest.raises(NotKept):
        await it.store.operations.kept_request(it.request_id)
    while await it.store.prune(100):
        pass
    assert (await it.store.operations.detail(it.request_id)).request_bytes is None
    assert (await it.store.response_chunk((await it.store.job(it.request_id)).key, 0))[:1] == b"y"


async def test_many_and_long_requests_expire_in_steps(stores: Stores, clock: ManualClock) -> None:
    store: Any = await stores.open(keep_requests="all", keep_requests_for=100)
    long, short = b"x" * (30 * CHUNK_SIZE), b"y" * 5000
    ids = [(await store.submit(make_job(body))).request_id for body in (short, long, *[short] * 300, long)]
    for request_id in ids:
        await store.cancel(request_id)
    clock.advance(100)
    steps = [await store.prune(1000)]
    while steps[-1]:
        steps.append(await store.prune(1000))
    assert len(steps) > 3
    for request_id in ids:
        assert (await store.operations.detail(request_id)).request_bytes is None


async def test_a_kept_request_is_deleted_with_its_job(stores: Stores, clock: ManualClock) -> None:
    it = await submit(stores, clock, options={"retention": 100}, webhook=None)
    await it.store.fail(await it.claim(), FAILED)
    clock.advance(101)
    while await it.store.prune(100):
        pass
    assert (await it.store.page(JobFilter())).jobs == []


async def test_a_request_that_no_release_can_read_is_not_kept(stores: Stores, clock: ManualClock) -> None:
    it = await submit(stores, clock)
    await it.store._write(
        lambda transaction, batch: [transaction.payloads.append((key, b"\xc1", b"", 0)) for key in batch],
        (await it.store.job(it.request_id)).key,
    )
    assert await it.store.claim(1) == []
    assert (await it.store.job(it.request_id)).state is JobState.FAILED
    with pytest.raises(NotKept, match="cannot be read"):
        await it.store.operations.kept_request(it.request_id)
