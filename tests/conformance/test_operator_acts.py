"""What operators do to requests: copy ended ones, cancel many, and make delayed ones due."""

from __future__ import annotations

from typing import Any

import pytest

from queue_middleware.errors import NotEnded, QueueFull, TooManyQueued, UnknownRequest
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.models import CHUNK_SIZE, CancelOutcome, ErrorType, Failure, JobState
from queue_middleware.jobs.outcomes import CANCELLED, LossReason
from queue_middleware.jobs.pauses import Pause
from queue_middleware.jobs.timeline import TimelineKind
from queue_middleware.stores.common import bulk
from queue_middleware.stores.common.bounds import MAX_WEIGHT
from queue_middleware.tasks.models import CompletionSource, ResolveOutcome
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import claim_deliveries, make_job, make_response, make_result, make_task, make_wait

UNKNOWN = "018f3b1e-0000-7000-8000-000000000001"
FAILED = Failure(ErrorType.RUNNER_SERVER_ERROR, "broken")


async def failed(store: Any, **fields: Any) -> str:
    """The id of a request that has failed."""
    submitted = await store.submit(make_job(**fields).replace(priority=0))
    (claim,) = await store.claim(1)
    await store.fail(claim, FAILED)
    return str(submitted.request_id)


async def key_of(store: Any, request_id: str) -> int:
    return int((await store.job(request_id)).key)


async def acts(store: Any) -> list[tuple[Any, ...]]:
    return [(act.operator, act.action, act.target, act.count) for act in reversed(await store.operations.audit())]


# --- copies


@pytest.fixture
async def keeping(stores: Stores) -> Any:
    return await stores.open(keep_requests="failed")


async def test_a_copy_and_its_original_name_each_other(keeping: Any, clock: ManualClock) -> None:
    original = await failed(keeping, body=b"x" * (CHUNK_SIZE + 1), task=make_task(), webhook="https://a.example/")
    clock.advance(5.0)
    kept = (await keeping.operations.kept_request(original)).job
    (copy,) = await keeping.operations.copy([(original, kept)], "carol", original)
    (again,) = await keeping.operations.copy([(original, kept.replace(task=make_task()))], "carol", original)
    found = await keeping.operations.detail(original)
    assert (found.job.state, found.copies, found.original) == (JobState.FAILED, (copy, again), None)
    found = await keeping.operations.detail(copy)
    assert (found.job.state, found.copies, found.original) == (JobState.QUEUED, (), original)
    assert await acts(keeping) == [("carol", Action.REPLAY, original, 1)] * 2
    timeline = await keeping.operations.timeline(original)
    assert [entry.kind for entry in timeline][-4:].count(TimelineKind.COPIED) == 2
    (claim, _) = await keeping.claim(2)
    assert (claim.request_id, claim.request, claim.webhook) == (copy, kept.request, "https://a.example/")


async def test_an_original_that_is_deleted_first_is_still_named(keeping: Any, clock: ManualClock) -> None:
    original = await failed(keeping)
    kept = (await keeping.operations.kept_request(original)).job
    clock.advance(7 * 86_400 - 1)
    (copy,) = await keeping.operations.copy([(original, kept)], "carol", original)
    clock.advance(2)
    assert await keeping.prune(100)
    assert (await keeping.operations.detail(copy)).original == original


async def test_a_job_is_copied_only_after_its_end(store: Any) -> None:
    queued = (await store.submit(make_job())).request_id
    ended = await failed(store)
    refused, unknown, copy = await store.operations.copy(
        [(queued, make_job()), (UNKNOWN, make_job()), (ended, make_job(b"other"))], "carol", "some"
    )
    assert isinstance(refused, NotEnded)
    assert isinstance(unknown, UnknownRequest)
    assert (await store.operations.detail(copy)).original == ended
    assert await acts(store) == [("carol", Action.REPLAY, "some", 1)]
    assert await store.operations.copy([], "carol", "none") == []
    assert len(await acts(store)) == 1


async def test_the_limits_for_submissions_hold_for_copies(stores: Stores) -> None:
    store: Any = await stores.open(max_queued=2, max_queued_per_client=1)
    ended = await failed(store)
    copies = [(ended, make_job(client=client)) for client in ("a", "a", "b", "c")]
    first, same_client, second, full = await store.operations.copy(copies, "carol", ended)
    assert isinstance(same_client, TooManyQueued)
    assert isinstance(full, QueueFull)
    assert (await store.operations.detail(ended)).copies == (first, second)


async def test_a_copy_obeys_a_pause(store: Any, clock: ManualClock) -> None:
    ended = await failed(store)
    await store.operations.pause(Pause("*", "carol", "", clock()))
    await store.operations.copy([(ended, make_job())], "carol", ended)
    assert await store.claim(1) == []


# --- cancelling many


async def test_many_jobs_are_cancelled_whatever_their_states(store: Any, clock: ManualClock) -> None:
    task = make_task()
    awaiting = await store.submit(make_job(task=task, webhook="https://a.example/"))
    (claim,) = await store.claim(1)
    await store.tasks.complete_attempt(claim, task, make_response(status=202), make_wait())
    ended = await failed(store)
    running = (await store.submit(make_job())).request_id
    await store.claim(1)
    delayed = await store.submit(make_job(priority=0))
    (other,) = await store.claim(1)
    await store.retry(other, 60.0)
    queued = (await store.submit(make_job())).request_id
    ids = [queued, delayed.request_id, running, ended, awaiting.request_id]
    keys = [await key_of(store, one) for one in ids]
    states = await store.operations.cancel_many([*keys, 1], "carol", '{"route":"/work"}')
    expected = [JobState.CANCELLED, JobState.CANCELLED, JobState.RUNNING, JobState.CANCELLED]
    assert states == dict(zip([*keys[:3], keys[4]], expected, strict=True))
    assert [(await store.job(one)).state for one in (queued, running, ended)] == ["cancelled", "running", "failed"]
    assert (await store.operations.detail(running)).is_cancelling
    assert await acts(store) == [("carol", Action.CANCEL, '{"route":"/work"}', 4)]
    assert [one.request_id for one in await claim_deliveries(store)] == [awaiting.request_id]
    late = await store.tasks.resolve(keys[4], CompletionSource.CALLBACK, make_result())
    assert late is ResolveOutcome.TOO_LATE
    assert await store.cancel(queued) is CancelOutcome.FINISHED
    assert (await store.job(queued)).failure == CANCELLED


async def test_long_requests_are_cancelled_in_several_transactions(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BATCH", 4)
    long = b"x" * (20 * CHUNK_SIZE)
    ids = [(await store.submit(make_job(body))).request_id for body in (long, long, b"", long, b"", b"")]
    keys = [await key_of(store, one) for one in ids]
    assert await store.operations.cancel_many(keys, "carol", "all") == dict.fromkeys(keys, JobState.CANCELLED)
    counts = [count for *_, count in await acts(store)]
    assert sum(counts) == 6
    assert len(counts) > 2


@pytest.mark.parametrize("keeps", ["none", "all"])
async def test_bodies_below_a_chunk_are_cancelled_in_several_transactions_as_well(stores: Stores, keeps: str) -> None:
    """A kept body is copied, so the writer would be held for seconds."""
    store: Any = await stores.open(keep_requests=keeps)
    ids = [(await store.submit(make_job(b"x" * (CHUNK_SIZE - 1)))).request_id for _ in range(40)]
    keys = [await key_of(store, one) for one in ids]
    assert await store.operations.cancel_many(keys, "carol", "all") == dict.fromkeys(keys, JobState.CANCELLED)
    counts = [count for *_, count in await acts(store)]
    assert sum(counts) == 40
    assert max(counts) <= MAX_WEIGHT // (CHUNK_SIZE - 1)


async def test_long_requests_expire_in_several_transactions(store: Any, clock: ManualClock) -> None:
    for _ in range(40):
        await store.submit(make_job(b"x" * (CHUNK_SIZE - 1), start_timeout=5.0))
    clock.advance(6)
    expired = []
    while found := await store.expire():
        expired.append(len(found))
    assert sum(expired) == 40
    assert max(expired) <= MAX_WEIGHT // (CHUNK_SIZE - 1)


async def test_cancelling_nothing_is_not_recorded(store: Any) -> None:
    key = await key_of(store, await failed(store))
    assert await store.operations.cancel_many([key], "carol", "all") == {}
    assert await store.operations.cancel_many([], "carol", "all") == {}
    assert await acts(store) == []


# --- run now


async def test_delayed_jobs_are_made_due(store: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BATCH", 1)
    retried = (await store.submit(make_job())).request_id
    await store.retry((await store.claim(1))[0], 3600.0)
    scheduled = await store.submit(make_job(task=make_task(), due_at=clock() + 3_600_000))
    queued = (await store.submit(make_job())).request_id
    ids = [retried, scheduled.request_id, queued]
    keys = [await key_of(store, one) for one in ids]
    assert await store.operations.run_now(keys, "carol", "all") == keys[:2]
    assert await acts(store) == [("carol", Action.RUN_NOW, "all", 1)] * 2
    assert [claim.request_id for claim in await store.claim(3)] == [retried, scheduled.request_id, queued]


async def test_suspects_that_are_made_due_still_run_one_at_a_time(store: Any) -> None:
    ids = [(await store.submit(make_job())).request_id for _ in range(2)]
    for claim in await store.claim(2):
        await store.lose(claim, LossReason.EXIT)
    assert len(await store.operations.run_now([await key_of(store, one) for one in ids], "carol", "all")) == 2
    assert [claim.request_id for claim in await store.claim(2)] == ids[:1]
    assert await store.claim(2) == []
