"""Guarantees about trace contexts: the last one of the claim that holds or ended a job is kept, until the job is deleted."""

from __future__ import annotations

import asyncio

from queue_middleware.errors import QueueError
from queue_middleware.jobs.models import Claim
from queue_middleware.jobs.store import JobStore
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import make_job, make_response

FIRST = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECOND = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"


async def started(store: JobStore) -> Claim:
    claim = (await store.submit(make_job(), start=True)).claim
    assert claim
    return claim


async def kept(store: JobStore, claim: Claim, context: str) -> bool | QueueError:
    result: asyncio.Future[bool | QueueError] = asyncio.get_running_loop().create_future()
    store.keep_trace(claim, context, result.set_result)
    return await result


async def test_the_last_context_of_an_attempt_is_kept_after_its_end(store: JobStore) -> None:
    claim, other = await started(store), await started(store)
    assert await store.trace_of(claim.key) is None
    assert await kept(store, claim, FIRST) is True
    assert await store.trace_of(claim.key) == FIRST
    assert await kept(store, claim, SECOND) is True
    await store.complete(claim, make_response())
    assert await store.trace_of(claim.key) == SECOND
    assert await store.trace_of(other.key) is None


async def test_only_the_holder_of_the_claim_may_store_one(store: JobStore) -> None:
    claim = await started(store)
    other = claim.replace(token=claim.token + 1)
    assert await kept(store, other, FIRST) is False
    await store.complete(claim, make_response())
    assert await kept(store, other, FIRST) is False
    assert await store.trace_of(claim.key) is None


async def test_a_context_is_stored_before_what_is_written_later(store: JobStore) -> None:
    claim = await started(store)
    result: asyncio.Future[bool | QueueError] = asyncio.get_running_loop().create_future()
    store.keep_trace(claim, FIRST, result.set_result)
    assert await store.complete(claim, make_response())
    assert await result is True


async def test_a_context_is_stored_in_the_transaction_that_ends_the_attempt(store: JobStore) -> None:
    """The end of the attempt may be executed first, together with the ends of others."""
    other, claim = await started(store), await started(store)
    writing = store.submit(make_job())  # what follows is one group
    ended = store.complete(other, make_response())
    result: asyncio.Future[bool | QueueError] = asyncio.get_running_loop().create_future()
    store.keep_trace(claim, FIRST, result.set_result)
    assert all(await asyncio.gather(writing, ended, store.complete(claim, make_response())))
    assert await result is True
    assert await store.trace_of(claim.key) == FIRST


async def test_a_context_is_deleted_with_its_job(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(retention=60)
    claim = await started(store)
    await kept(store, claim, FIRST)
    await store.complete(claim, make_response())
    clock.advance(61)
    assert await store.prune(100)
    assert await store.trace_of(claim.key) is None
