"""Retention in steps: how much one transaction deletes and writes, and how long it takes, also on a full disk."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from queue_middleware.errors import DiskFull, UnknownRequest
from queue_middleware.jobs.log_lines import LogLevel, LogLine
from queue_middleware.jobs.models import CHUNK_SIZE, Claim, Progress, WebhookKind
from queue_middleware.settings import Settings
from queue_middleware.stores.common import bounds, retention
from queue_middleware.stores.common.bounds import MAX_WEIGHT, ROW_WEIGHT, Budget, within_bounds
from queue_middleware.stores.common.pruning import Pruning
from queue_middleware.stores.common.retention import PrunableRows, Pruned
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.webhooks.models import DeliveryFilter
from tests.support.clock import ManualClock
from tests.support.factories import claim_deliveries, make_delivery_attempt, make_job, make_response

FULL = DiskFull("the disk of the queue's database is full", 30)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SQLiteStore]:
    monkeypatch.setattr(bounds, "MAX_SECONDS", 60.0)  # here only the weight limits a step
    options = {"database": str(tmp_path / "queue.sqlite3"), "min_free_disk": 0, "retention": 60.0}
    store = SQLiteStore(Settings.load(options, {}), clock)
    await store.open()
    yield store
    await store.close()


async def begin(store: SQLiteStore, **job: Any) -> Claim:
    receipt = await store.submit(make_job(**job), start=True)
    assert receipt.claim
    return receipt.claim


async def stream(store: SQLiteStore, parts: int, **job: Any) -> Claim:
    """A job with a response of this many chunks."""
    claim = await begin(store, **job)
    for number in range(parts):
        await store.append(claim, number, b"x" * CHUNK_SIZE)
    await store.complete(claim, make_response(chunks=parts))
    return claim


def counted(store: SQLiteStore, what: str) -> int:
    connection = sqlite3.connect(store.path)
    try:
        return int(connection.execute(f"SELECT count(*) FROM {what}").fetchone()[0])
    finally:
        connection.close()


async def test_a_step_deletes_a_few_chunks_and_writes_little(store: SQLiteStore, clock: ManualClock) -> None:
    for _ in range(2):
        await stream(store, 40)
    clock.advance(61)
    log = Path(f"{store.path}-wal")
    await store._connection.call(lambda c: c.execute("PRAGMA wal_autocheckpoint = 0").fetchall())
    left, written, steps = 80, log.stat().st_size, 0
    await store._connection.call(lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    written = log.stat().st_size
    while await store.prune(500):
        steps += 1
        deleted, left = left - counted(store, "response_chunk"), counted(store, "response_chunk")
        # Deleted bytes are not written again, as they would be if SQLite overwrote each page.
        assert deleted * CHUNK_SIZE <= MAX_WEIGHT
        assert log.stat().st_size - written <= 2**20
        written = log.stat().st_size
    assert (steps, left, counted(store, "job")) == (6, 0, 0)


async def test_small_jobs_are_deleted_together_within_the_limit(store: SQLiteStore, clock: ManualClock) -> None:
    for _ in range(12):
        await store.complete(await begin(store), make_response(b"x" * (CHUNK_SIZE * 2)))
    clock.advance(61)
    left = 12
    while await store.prune(500):
        deleted, left = left - counted(store, "job"), counted(store, "job")
        assert deleted * CHUNK_SIZE * 2 <= MAX_WEIGHT
    assert left == 0


async def test_the_time_of_a_step_is_limited(store: SQLiteStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    await stream(store, 12)  # light enough for one step
    clock.advance(61)
    seconds = iter(range(0, 10_000, 1))
    monkeypatch.setattr(retention, "Budget", lambda weight: Budget(weight, lambda: next(seconds) * 1000.0))
    assert await store.prune(10) == 1
    assert counted(store, "response_chunk") == 8  # four chunks were deleted, then the time was over


async def test_logs_and_event_deliveries_are_deleted_in_parts(store: SQLiteStore, clock: ManualClock) -> None:
    claim = await begin(store, webhook="https://a.example/", webhook_kinds=(WebhookKind.PROGRESS,))
    for number in range(20):
        line = LogLine(0, LogLevel.INFO, "x" * CHUNK_SIZE, {}, "run", number + 1)
        await store.log(claim, [line], Progress(number / 20, None))
        clock.advance(1)
        for delivery in await claim_deliveries(store):
            await store.webhooks.settle(delivery, make_delivery_attempt(), delivered=True, retry_in=None)
    await store.complete(claim, make_response())
    for delivery in await claim_deliveries(store):
        await store.webhooks.settle(delivery, make_delivery_attempt(), delivered=True, retry_in=None)
    clock.advance(61)
    steps = 0
    before = counted(store, "log")
    while await store.prune(10):
        now = counted(store, "log")
        assert (before - now) * CHUNK_SIZE <= MAX_WEIGHT
        before, steps = now, steps + 1
    assert steps > 1
    assert [counted(store, name) for name in ("job", "log", "delivery", "delivery_attempt", "payload")] == [0] * 5


# --- redelivery


async def failed_delivery(store: SQLiteStore, parts: int = 0) -> tuple[Claim, int]:
    claim = await stream(store, parts, webhook="https://a.example/")
    (delivery,) = await claim_deliveries(store)
    await store.webhooks.settle(delivery, make_delivery_attempt(500, "answered 500"), delivered=False, retry_in=None)
    return claim, delivery.id


@pytest.mark.parametrize("parts", [0, 40])
async def test_a_job_that_is_redelivered_before_its_deletion_is_kept(
    store: SQLiteStore, clock: ManualClock, parts: int
) -> None:
    claim, delivery = await failed_delivery(store, parts)
    other = await stream(store, 0)
    clock.advance(61)
    found = await store._read(lambda connection: retention.find_prunable(connection, clock(), 60_000, 0, 10))
    assert [key for key, _ in found.jobs] == ([claim.key, other.key] if not parts else [claim.key])
    assert await store.webhooks.redeliver([delivery], "carol", "all") == 1
    pruned = await store._writer.submit(retention.prune, found)
    assert pruned.count == (0 if parts else 1)
    assert (await store.result(claim.request_id)).response == make_response(chunks=parts)
    assert [again.request_id for again in await claim_deliveries(store)] == [claim.request_id]


async def test_a_result_that_is_deleted_in_part_cannot_be_redelivered(store: SQLiteStore, clock: ManualClock) -> None:
    claim, delivery = await failed_delivery(store, 40)
    clock.advance(61)
    assert await store.prune(10) == 1
    assert 0 < counted(store, "response_chunk") < 40
    assert (await store.result(claim.request_id)).response is None
    assert await store.webhooks.redeliver([delivery], "carol", "all") == 0
    assert await store.webhooks.records(DeliveryFilter(request_id=claim.request_id)) == []
    while await store.prune(10):
        pass
    with pytest.raises(UnknownRequest):
        await store.result(claim.request_id)


async def test_an_unstored_response_is_deleted_in_steps(store: SQLiteStore, clock: ManualClock) -> None:
    claim = await stream(store, 40, unstored_response=True)
    store._maintenance._pruning._retention = 10**9
    clock.advance(360)
    steps = 0
    while await store.prune(10):
        steps += 1
    assert steps == 3
    assert (counted(store, "response_chunk"), counted(store, "unstored_response")) == (0, 0)
    assert (await store.result(claim.request_id)).response is None


# --- on a full disk


class Disk:
    """A writer that raises `DiskFull` for transactions above a weight."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tried: list[int] = []

    async def write(self, operation: Any, found: PrunableRows, size: int) -> Pruned:
        self.tried.append(found.max_weight)
        if found.max_weight > self.room:
            raise FULL
        return Pruned(1, 7)

    async def read(self, work: Any) -> PrunableRows:
        return PrunableRows([(7, 10**6)], [], [], [], [])


async def test_steps_adapt_to_the_space_on_the_disk() -> None:
    disk = Disk(20_000)
    pruning = Pruning(disk.write, disk.read, lambda kept: 0, 60)
    assert await pruning.step(10) == 1
    assert disk.tried == [MAX_WEIGHT, MAX_WEIGHT // 16, MAX_WEIGHT // 256]
    disk.room = MAX_WEIGHT
    for _ in range(12):
        await pruning.step(10)
    assert disk.tried[-1] == MAX_WEIGHT


async def test_without_any_space_disk_full_is_raised() -> None:
    disk = Disk(0)
    with pytest.raises(DiskFull):
        await Pruning(disk.write, disk.read, lambda kept: 0, 60).step(10)
    assert disk.tried[-1] == 1


async def test_the_smallest_step_deletes_one_chunk(store: SQLiteStore, clock: ManualClock) -> None:
    await stream(store, 3)
    clock.advance(61)
    store._maintenance._pruning._weight = 1
    await store.prune(10)
    assert counted(store, "response_chunk") == 2


# --- other operations with limits


def test_rows_are_limited_by_the_weight_of_their_payloads() -> None:
    assert within_bounds([(1, "a", 400), (2, "b", 0)]) == [(1, "a")]
    assert within_bounds([(1, 8), (2, None), (3, 8), (4, 0)]) == [(1,), (2,)]
    assert len(within_bounds([(key, 0) for key in range(5000)])) == MAX_WEIGHT // ROW_WEIGHT


async def test_expired_jobs_with_large_requests_are_failed_in_groups(store: SQLiteStore, clock: ManualClock) -> None:
    for _ in range(6):
        await store.submit(make_job(b"x" * (8 * CHUNK_SIZE), start_timeout=1.0))
    clock.advance(2)
    counts = []
    while expired := await store.expire():
        counts.append(len(expired))
    assert (max(counts) * 7 * CHUNK_SIZE <= MAX_WEIGHT + CHUNK_SIZE, sum(counts)) == (True, 6)
    assert counted(store, "request_chunk") == 0


async def test_lost_jobs_with_large_responses_are_rescued_in_groups(tmp_path: Path, store: SQLiteStore) -> None:
    for _ in range(3):
        claim = await begin(store)
        for number in range(10):
            await store.append(claim, number, b"x" * CHUNK_SIZE)
    store._files.liveness.disown()  # like the death of its process
    other = SQLiteStore(Settings.load({"database": str(store.path), "min_free_disk": 0}, {}))
    await other.open()
    try:
        assert [len(await other.rescue()) for _ in range(4)] == [1, 1, 1, 0]
    finally:
        await other.close()


async def test_all_claims_are_released_at_close(store: SQLiteStore) -> None:
    for _ in range(3):
        claim = await begin(store)
        for number in range(10):
            await store.append(claim, number, b"x" * CHUNK_SIZE)
    await store.close()
    assert counted(store, "response_chunk") == 0
    assert counted(store, "job WHERE state = 'queued'") == 3


async def test_pages_that_were_freed_in_the_file_count_as_space(store: SQLiteStore, clock: ManualClock) -> None:
    await stream(store, 40)
    clock.advance(61)
    while await store.prune(10):
        pass
    assert store._file_watch.spare >= 40 * CHUNK_SIZE
