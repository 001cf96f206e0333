"""Guarantees for submissions with an idempotency key."""

from __future__ import annotations

import asyncio
import random

import pytest

from queue_middleware.errors import IdempotencyKeyReused, QueueFull, StoreError, TooManyQueued, UnknownRequest
from queue_middleware.jobs.idempotency import IdempotencyKey
from queue_middleware.jobs.models import CancelOutcome, Claim, ErrorType, Failure, JobState, NewJob, Priority, SubmitResult
from queue_middleware.jobs.store import JobStore
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import make_job, make_response, make_task


def keyed(key: str = "k", *, fingerprint: bytes = b"same", scope: str = "", **changes: object) -> NewJob:
    return make_job(idempotency_key=IdempotencyKey(scope, key, fingerprint), **changes)


def existing_state(result: SubmitResult) -> JobState:
    assert result.existing is not None
    assert result.existing.job.request_id == result.request_id
    assert result.claim is None
    return result.existing.job.state


async def job_count(store: JobStore) -> int:
    return len(await store.claim(100))


async def test_the_second_submission_returns_the_job_of_the_first(store: JobStore) -> None:
    first = await store.submit(keyed())
    assert first.existing is None
    second = await store.submit(keyed())
    assert (second.request_id, existing_state(second)) == (first.request_id, JobState.QUEUED)
    assert await job_count(store) == 1


async def test_the_job_is_returned_as_it_is_now(store: JobStore) -> None:
    first = await store.submit(keyed(priority=Priority.LOW))
    await store.submit(make_job())
    behind = await store.submit(keyed(priority=Priority.LOW))
    assert behind.existing is not None
    assert (behind.position, behind.existing.job.position) == (1, 1)
    claims = await store.claim(2)
    assert existing_state(await store.submit(keyed(priority=Priority.LOW))) is JobState.RUNNING
    for claim in claims:
        await store.complete(claim, make_response(status=201))
    ended = await store.submit(keyed())
    assert existing_state(ended) is JobState.COMPLETED
    assert ended.existing is not None
    assert (ended.request_id, ended.existing.job.status) == (first.request_id, 201)


async def test_a_repeated_submission_claims_nothing(store: JobStore) -> None:
    first = await store.submit(keyed(), start=True)
    assert first.claim is not None
    results: list[object] = []
    second = await store.submit(keyed(), start=True, on_result=results.append)
    assert existing_state(second) is JobState.RUNNING
    assert second.claim is None
    assert results == [second]
    assert await store.complete(first.claim, make_response())


async def test_another_request_under_the_key_is_refused(store: JobStore) -> None:
    await store.submit(keyed())
    with pytest.raises(IdempotencyKeyReused, match="'k'") as refusal:
        await store.submit(keyed(fingerprint=b"other"))
    assert refusal.value.status == 422
    assert await job_count(store) == 1


async def test_keys_and_scopes_are_separate(store: JobStore) -> None:
    jobs = [keyed("a"), keyed("b"), keyed("a", scope="x"), keyed("a", scope="y"), keyed("A")]
    first = [(await store.submit(new)).request_id for new in jobs]
    assert len(set(first)) == len(jobs)
    assert [(await store.submit(new)).request_id for new in jobs] == first


@pytest.mark.parametrize("key", ['a"b', "a\\b", "'", "-1", "[1]", "null", "x" * 255])
@pytest.mark.parametrize("scope", ["", "-1", 'o"hara', "zoë \N{CAT FACE}", "x" * 256])
async def test_keys_and_identities_of_any_characters(store: JobStore, key: str, scope: str) -> None:
    first = await store.submit(keyed(key, scope=scope))
    assert (await store.submit(keyed(key, scope=scope))).request_id == first.request_id
    assert (await store.submit(keyed(key, scope=scope + "2"))).request_id != first.request_id


@pytest.mark.parametrize("start", [True, False])
async def test_one_of_several_at_once_creates_the_job(store: JobStore, start: bool) -> None:
    """They are executed in one transaction, together with others."""
    one = [store.submit(keyed(), start=start) for _ in range(20)]
    other = [store.submit(keyed("other"), start=start) for _ in range(20)]
    plain = [store.submit(make_job(), start=start) for _ in range(5)]
    results = await asyncio.gather(*one, *other, *plain)
    assert [result.existing is None for result in results] == [True, *[False] * 19, True, *[False] * 19, *[True] * 5]
    assert len({result.request_id for result in results[:20]}) == 1
    assert len({result.request_id for result in results}) == 7
    for result in results:
        assert (await store.job(result.request_id)).request_id == result.request_id


async def test_another_request_in_the_same_transaction_is_refused(store: JobStore) -> None:
    first, second, third = await asyncio.gather(
        *[store.submit(new) for new in (keyed(), keyed(fingerprint=b"other"), keyed())], return_exceptions=True
    )
    assert isinstance(first, SubmitResult)
    assert isinstance(second, IdempotencyKeyReused)
    assert isinstance(third, SubmitResult)
    assert third.request_id == first.request_id


async def test_a_submission_that_fails_in_their_transaction_creates_no_second_job(store: JobStore) -> None:
    """The transaction is rolled back, and its operations are executed one by one."""
    jobs = [keyed(), make_job(client="\ud800"), keyed(), keyed(fingerprint=b"other")]
    first, failed, second, reused = await asyncio.gather(*[store.submit(new) for new in jobs], return_exceptions=True)
    assert isinstance(first, SubmitResult)
    assert isinstance(failed, StoreError)
    assert isinstance(second, SubmitResult)
    assert isinstance(reused, IdempotencyKeyReused)
    assert (first.existing, existing_state(second)) == (None, JobState.QUEUED)
    assert second.request_id == first.request_id
    assert await job_count(store) == 1


async def test_a_refused_submission_leaves_its_key_to_the_next_one_of_the_transaction(stores: Stores) -> None:
    store = await stores.open(max_queued=2)
    await store.submit(make_job())
    first, refused, second = await asyncio.gather(
        *[
            store.submit(new)
            for new in (keyed(max_queue_length=0), keyed("other", max_queue_length=0), keyed(fingerprint=b"2"))
        ],
        return_exceptions=True,
    )
    assert isinstance(first, TooManyQueued)
    assert isinstance(refused, TooManyQueued)
    assert isinstance(second, SubmitResult)
    assert second.existing is None


async def test_one_of_several_processes_creates_the_job(stores: Stores) -> None:
    processes = [await stores.open() for _ in range(3)]
    results = await asyncio.gather(*[store.submit(keyed()) for store in processes * 10])
    assert len({result.request_id for result in results}) == 1
    assert sum(result.existing is None for result in results) == 1
    assert sum([await job_count(store) for store in processes]) == 1


async def test_keys_survive_a_restart(stores: Stores) -> None:
    first = await stores.open()
    submitted = await first.submit(keyed())
    await first.close()
    second = await stores.open()
    assert (await second.submit(keyed())).request_id == submitted.request_id


async def test_a_full_queue_still_returns_existing_jobs(stores: Stores) -> None:
    store = await stores.open(max_queued=1, max_queued_per_client=1, max_tasks=1, max_tasks_per_client=1)
    first = await store.submit(keyed(task=make_task()))
    with pytest.raises(QueueFull):
        await store.submit(keyed("new"))
    again = [await store.submit(new) for new in (keyed(), keyed(max_queue_length=0))]
    assert [result.request_id for result in again] == [first.request_id] * 2


async def test_a_refused_submission_does_not_use_its_key(stores: Stores) -> None:
    store = await stores.open(max_queued=1)
    await store.submit(make_job())
    with pytest.raises(QueueFull):
        await store.submit(keyed())
    await store.claim(1)
    assert (await store.submit(keyed(fingerprint=b"other"))).existing is None


async def test_limits_do_not_count_repeated_submissions(stores: Stores) -> None:
    store = await stores.open(max_queued=10, max_queued_per_client=3)
    results = await asyncio.gather(*[store.submit(keyed()) for _ in range(10)], *[store.submit(make_job()) for _ in range(2)])
    assert len({result.request_id for result in results}) == 3
    counts = await store.counts()
    assert sum(counts.jobs.values()) == 3


async def test_a_task_is_returned_with_its_salt(store: JobStore) -> None:
    task = make_task()
    await store.submit(keyed(task=task))
    again = await store.submit(keyed(task=make_task()))
    assert again.existing is not None
    assert again.existing.task == task
    plain = await store.submit(keyed("plain"))
    assert plain.existing is None
    repeated = await store.submit(keyed("plain"))
    assert repeated.existing is not None
    assert repeated.existing.task is None


async def test_retention_frees_the_key_with_the_job(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(retention=60)
    first = await store.submit(keyed(), start=True)
    assert first.claim is not None
    await store.complete(first.claim, make_response())
    clock.advance(59)
    assert await store.prune(100) == 0
    assert (await store.submit(keyed())).request_id == first.request_id
    clock.advance(3600)
    while await store.prune(100):
        pass
    with pytest.raises(UnknownRequest):
        await store.job(first.request_id)
    second = await store.submit(keyed(fingerprint=b"other"))
    assert second.existing is None
    assert second.request_id != first.request_id


@pytest.mark.parametrize("retry_failed", [False, True])
@pytest.mark.parametrize("seed", range(8))
async def test_any_course_of_events(stores: Stores, clock: ManualClock, seed: int, retry_failed: bool) -> None:
    """Two processes submit with few keys, in groups, while jobs end and are deleted. A model knows what each must return."""
    chance = random.Random(seed)
    both = [await stores.open(idempotency_retry_failed=retry_failed, retention=60) for _ in range(2)]
    known: dict[str, tuple[bytes, str]] = {}
    failed: set[str] = set()
    claims: list[tuple[JobStore, Claim]] = []
    for _ in range(40):
        store = chance.choice(both)
        group = [(chance.choice("abc"), chance.choice((b"1", b"1", b"2"))) for _ in range(chance.randint(1, 4))]
        start = chance.random() < 0.5
        results = await asyncio.gather(
            *[store.submit(keyed(key, fingerprint=fingerprint), start=start) for key, fingerprint in group],
            return_exceptions=True,
        )
        for (key, fingerprint), result in zip(group, results, strict=True):
            if key in known and known[key][0] != fingerprint:
                assert isinstance(result, IdempotencyKeyReused)
                continue
            assert isinstance(result, SubmitResult)
            if key in known and not (retry_failed and known[key][1] in failed):
                assert (result.request_id, result.existing is None) == (known[key][1], False)
            else:
                assert result.existing is None
                known[key] = fingerprint, result.request_id
                claims += [(store, result.claim)] if result.claim else []
        if chance.random() < 0.5:
            claims += [(store, claim) for claim in await store.claim(chance.randint(1, 3))]
        while claims and chance.random() < 0.5:
            owner, claim = claims.pop(chance.randrange(len(claims)))
            status = chance.choice((200, 404, 500, None))
            await end(owner, claim, status)
            if status in (500, None):
                failed.add(claim.request_id)
        if chance.random() < 0.1:
            known = await deleted(store, clock, known, {claim.request_id for _, claim in claims})


async def deleted(
    store: JobStore, clock: ManualClock, known: dict[str, tuple[bytes, str]], running: set[str]
) -> dict[str, tuple[bytes, str]]:
    """Let retention delete all ended jobs. Returns the keys of the others."""
    ended = {request_id for _, request_id in known.values() if (await store.job(request_id)).finished_at is not None}
    assert not ended & running
    clock.advance(600)
    while await store.prune(100):
        pass
    return {key: entry for key, entry in known.items() if entry[1] not in ended}


async def end(store: JobStore, claim: object, status: int | None) -> None:
    """End a job with a response, or without one."""
    if status is None:
        await store.fail(claim, Failure(ErrorType.REQUEST_TIMEOUT, "too slow"))  # type: ignore[arg-type]
    else:
        await store.complete(claim, make_response(status=status))  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [None, 500, 503, 404, 200])
async def test_failed_jobs_keep_their_key(store: JobStore, status: int | None) -> None:
    first = await store.submit(keyed(), start=True)
    await end(store, first.claim, status)
    again = await store.submit(keyed(), start=True)
    assert again.request_id == first.request_id
    assert again.existing is not None
    assert (again.existing.job.failure is not None) == (status is None)


async def test_cancelled_jobs_keep_their_key(stores: Stores) -> None:
    store = await stores.open(idempotency_retry_failed=True)
    first = await store.submit(keyed())
    assert await store.cancel(first.request_id) is CancelOutcome.CANCELLED
    assert existing_state(await store.submit(keyed())) is JobState.CANCELLED


@pytest.mark.parametrize(("status", "is_new"), [(None, True), (500, True), (503, True), (404, False), (200, False)])
async def test_a_failed_job_may_begin_anew(stores: Stores, status: int | None, is_new: bool) -> None:
    store = await stores.open(idempotency_retry_failed=True)
    first = await store.submit(keyed(), start=True)
    assert existing_state(await store.submit(keyed())) is JobState.RUNNING
    await end(store, first.claim, status)
    with pytest.raises(IdempotencyKeyReused):
        await store.submit(keyed(fingerprint=b"other"))
    results = await asyncio.gather(*[store.submit(keyed(), start=True) for _ in range(3)])
    assert len({result.request_id for result in results}) == 1
    assert (results[0].request_id != first.request_id) is is_new
    assert [result.existing is None for result in results] == [is_new, False, False]
    assert (await store.submit(keyed())).request_id == results[0].request_id
    assert (await store.job(first.request_id)).finished_at is not None


async def test_the_failed_job_is_deleted_without_the_key_of_the_new_one(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(idempotency_retry_failed=True, retention=60)
    first = await store.submit(keyed(), start=True)
    await end(store, first.claim, None)
    clock.advance(3600)
    second = await store.submit(keyed(), start=True)
    while await store.prune(100):
        pass
    with pytest.raises(UnknownRequest):
        await store.job(first.request_id)
    assert (await store.submit(keyed())).request_id == second.request_id
