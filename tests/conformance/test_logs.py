"""Guarantees about log lines: in order over all attempts, only from the holder of the claim, deleted with the job."""

from __future__ import annotations

import asyncio

from queue_middleware.jobs.log_lines import LogLevel, LogLine
from queue_middleware.jobs.models import ErrorType, Failure, JobState, Progress, RetryPolicy
from queue_middleware.jobs.store import JobStore
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import a_job, an_answer
from tests.support.leases import lease_passes


def a_line(message: str = "hello", **changes: object) -> LogLine:
    return LogLine(1_734_709_037_120_314, LogLevel.INFO, message).replace(**changes)


def lines(*messages: str) -> list[LogLine]:
    return [a_line(message) for message in messages]


async def said(store: JobStore, key: int, after: int = 0) -> list[tuple[int, str]]:
    return [(line.number, line.message) for line in await store.logs(key, after)]


async def test_a_line_is_returned_unchanged(store: JobStore) -> None:
    claim = (await store.submit(a_job(), start=True)).claim
    assert claim
    line = a_line("Grüße\x00\n\N{SNOWMAN}", level=LogLevel.STDERR, labels={"step": "3", "": ""}, source="OTHER")
    assert await store.log(claim, [line])
    assert await store.logs(claim.key) == [line.replace(number=1)]


async def test_lines_are_numbered_in_order_and_read_from_any_number(store: JobStore) -> None:
    claim = (await store.submit(a_job(), start=True)).claim
    assert claim
    assert await said(store, claim.key) == []
    await asyncio.gather(store.log(claim, lines("one", "two", "three")), store.log(claim, lines("four")))
    await store.log(claim, lines("five", "six"))
    everything = list(enumerate(("one", "two", "three", "four", "five", "six"), start=1))
    for after in range(8):
        assert await said(store, claim.key, after) == everything[after:]


async def test_every_job_has_its_own_lines(store: JobStore) -> None:
    claims = [claim for _ in range(3) if (claim := (await store.submit(a_job(), start=True)).claim)]
    await asyncio.gather(*[store.log(claim, lines(claim.request_id)) for claim in claims for _ in range(2)])
    for claim in claims:
        assert await said(store, claim.key) == [(1, claim.request_id), (2, claim.request_id)]


async def test_progress_may_come_with_lines_or_alone(store: JobStore) -> None:
    receipt = await store.submit(a_job(), start=True)
    assert receipt.claim
    assert await store.log(receipt.claim, lines("half"), Progress(0.5, "half"))
    assert (await store.job(receipt.request_id)).progress == Progress(0.5, "half")
    assert await store.log(receipt.claim, (), Progress(0.75))
    assert (await store.job(receipt.request_id)).progress == Progress(0.75)
    assert await said(store, receipt.claim.key) == [(1, "half")]


async def test_lines_of_all_attempts_are_one_sequence(store: JobStore, clock: ManualClock) -> None:
    claim = (await store.submit(a_job(), start=True)).claim
    assert claim
    await store.log(claim, lines("first"))
    await store.retry(claim, 0.0)
    (again,) = await store.claim(1)
    await store.log(again, lines("second"))
    await lease_passes(store, clock)
    await store.rescue()
    clock.advance(2)
    (third,) = await store.claim(1)
    await store.log(third, lines("third"))
    one, two, loss, three = await said(store, claim.key)
    assert [one, two, three] == [(1, "first"), (2, "second"), (4, "third")]
    assert loss[0] == 3


async def test_a_lost_claim_adds_no_lines(store: JobStore, clock: ManualClock) -> None:
    stale = (await store.submit(a_job(), start=True)).claim
    assert stale
    await store.log(stale, lines("mine"))
    await lease_passes(store, clock)
    await store.rescue()
    assert not await store.log(stale, lines("between"))
    clock.advance(1)
    (fresh,) = await store.claim(1)
    assert not await store.log(stale, lines("too late"), Progress(0.9))
    assert (await store.job(fresh.request_id)).progress is None
    await store.complete(fresh, an_answer())
    assert not await store.log(stale, lines("after the end"))
    mine, loss = await said(store, stale.key)
    assert mine == (1, "mine")
    assert "attempt 1 of 3 was lost" in loss[1]


async def test_a_lost_claim_adds_no_lines_after_its_job_has_failed(store: JobStore, clock: ManualClock) -> None:
    stale = (await store.submit(a_job(retry=RetryPolicy(1)), start=True)).claim
    assert stale
    await lease_passes(store, clock)
    await store.rescue()
    assert not await store.log(stale, lines("too late"))
    assert await said(store, stale.key) == []


async def test_the_last_lines_are_stored_in_the_transaction_of_the_end(store: JobStore) -> None:
    one, other = [(await store.submit(a_job(), start=True)).claim for _ in range(2)]
    assert one
    assert other
    ends = [store.complete(one, an_answer()), store.log(other, lines("last words")), store.complete(other, an_answer())]
    assert all(await asyncio.gather(*ends))
    assert await said(store, other.key) == [(1, "last words")]


async def test_a_cancelled_job_keeps_its_lines(store: JobStore) -> None:
    claim = (await store.submit(a_job(), start=True)).claim
    assert claim
    await store.log(claim, lines("begun"))
    await store.cancel(claim.request_id)
    assert await store.log(claim, lines("tidying up"))
    await store.fail(claim, Failure(ErrorType.CLIENT_CANCELLED, "Request was cancelled"))
    assert (await store.job(claim.request_id)).state is JobState.CANCELLED
    assert await said(store, claim.key) == [(1, "begun"), (2, "tidying up")]


async def test_retention_deletes_lines_with_their_job(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(retention=60)
    claim = (await store.submit(a_job(), start=True)).claim
    assert claim
    await store.log(claim, lines("one"))
    await store.log(claim, lines("two"))
    await store.complete(claim, an_answer())
    clock.advance(61)
    assert await store.prune(10) == 1
    assert await store.logs(claim.key) == []


async def test_another_process_reads_the_lines(stores: Stores) -> None:
    here, there = await stores.open(), await stores.open()
    claim = (await here.submit(a_job(), start=True)).claim
    assert claim
    await here.log(claim, lines("one"))
    assert await said(there, claim.key) == [(1, "one")]
