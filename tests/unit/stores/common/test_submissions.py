"""Plain jobs that start at once, and jobs that end with a response, have statements of their own.

They must store what the general statements store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from queue_middleware.errors import QueueError, QueueFull, TooManyQueued
from queue_middleware.jobs.models import (
    ErrorType,
    Failure,
    NewJob,
    Priority,
    RetryCause,
    RetryPolicy,
    SubmitResult,
    WebhookKind,
)
from queue_middleware.settings import Settings
from queue_middleware.stores.common import jobs, submissions
from queue_middleware.stores.common.codec import encode_request
from queue_middleware.stores.common.operation_costs import ended_attempt
from queue_middleware.stores.common.submissions import Limits
from queue_middleware.stores.sqlite import SQLiteStore
from tests.support.factories import make_job, make_response, make_task

LIMITS = Limits(100, 100, 100, 100)
HOOK = "https://receiver.example/hook"
PLAIN = [
    make_job(),
    make_job(webhook=HOOK),
    make_job(client="id:ada", retry=RetryPolicy(1), route="/work"),
    make_job(body=b"x" * 2**18),
]
UNUSUAL = [
    make_job(priority=Priority.LOW),
    make_job(start_timeout=30.0),
    make_job(max_queue_length=5),
    make_job(unstored_response=True),
    make_job(webhook=HOOK, webhook_kinds=(WebhookKind.STARTED,)),
    make_job(retry=RetryPolicy(1, {RetryCause.TIMEOUT: 2})),
    make_job(body=b"x" * (2**18 + 1)),
    make_job(task=make_task()),
]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    settings = Settings.load({"database": str(tmp_path / "queue.sqlite3"), "min_free_disk": 0}, {})
    store = SQLiteStore(settings, lambda: 1_700_000_000_000, lambda: 1_000_000)
    await store.open()
    yield store
    await store.close()


async def submit(store: SQLiteStore, new_jobs: list[NewJob], limits: Limits) -> list[SubmitResult | QueueError]:
    """Submit all jobs in one transaction. They may start at once."""
    batch = [(new, encode_request(new.request), True, limits) for new in new_jobs]
    return await store._writer.submit(lambda transaction, _: [submissions.submit(transaction, batch)], None)


async def stored(store: SQLiteStore) -> list[dict[str, Any]]:
    """The rows of all jobs without what is random or depends on the order."""
    names = [row[1] for row in await store._reading.call(lambda db: db.execute("PRAGMA table_info(job)").fetchall())]
    rows = await store._reading.call(lambda db: db.execute("SELECT * FROM job ORDER BY id").fetchall())
    found = [dict(zip(names, row, strict=True)) for row in rows]
    assert all((job.pop("token") is None) is (job["state"] == "queued") for job in found)
    assert len({(job.pop("id"), job.pop("id_random")) for job in found}) == len(found)
    return found


@pytest.mark.parametrize("on_crash", ["retry", "fail"])
async def test_both_statements_store_the_same(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, on_crash: str) -> None:
    limits = msgspec.structs.replace(LIMITS, fails_on_crash=on_crash == "fail")
    assert all(map(submissions._is_plain, PLAIN))
    receipts = await submit(store, PLAIN, limits)
    monkeypatch.setattr(submissions, "_is_plain", lambda new: False)
    receipts += await submit(store, PLAIN, limits)
    found = await stored(store)
    assert found[: len(PLAIN)] == found[len(PLAIN) :]
    for receipt, new in zip(receipts, PLAIN * 2, strict=True):
        assert isinstance(receipt, SubmitResult)
        assert receipt.claim is not None
        claim = receipt.claim
        assert (claim.request_id, claim.attempt, claim.request) == (receipt.request_id, 1, new.request)
        assert (claim.retry, claim.webhook, claim.route) == (new.retry, new.webhook, new.route)
        response = make_response(new.request.body[:10])
        assert await store.complete(claim, response)
        assert (await store.result(receipt.request_id)).response == response


async def test_both_statements_for_the_end_store_the_same(store: SQLiteStore) -> None:
    receipts = await submit(store, [make_job() for _ in range(5)], LIMITS)
    claims = [receipt.claim for receipt in receipts if isinstance(receipt, SubmitResult) and receipt.claim is not None]
    responses = [ended_attempt(claim, make_response()) for claim in claims[:4]]
    failure = ended_attempt(claims[4], Failure(ErrorType.REQUEST_TIMEOUT, "late"))
    for batch in (responses[:2], [*responses[2:], failure]):
        finished = await store._writer.submit(lambda transaction, _, batch=batch: [jobs.finish(transaction, batch)], None)
        assert finished == [True] * len(batch)
    *completed, failed = await stored(store)
    assert completed == completed[:1] * 4
    assert (completed[0]["state"], completed[0]["status"], failed["state"]) == ("completed", 200, "failed")


async def test_plain_and_unusual_jobs_of_one_transaction_keep_their_order(store: SQLiteStore) -> None:
    mixed = [new for pair in zip(UNUSUAL, PLAIN * 2, strict=True) for new in pair]
    assert not any(map(submissions._is_plain, UNUSUAL))
    receipts = await submit(store, mixed, LIMITS)
    claims = [receipt.claim for receipt in receipts if isinstance(receipt, SubmitResult) and receipt.claim is not None]
    assert [claim.request for claim in claims] == [new.request for new in mixed]
    assert [claim.webhook_kinds for claim in claims] == [new.webhook_kinds for new in mixed]
    assert [job["client"] for job in await stored(store)] == [new.client for new in mixed]
    assert len({claim.key for claim in claims}) == len({claim.token for claim in claims}) == len(mixed)


async def test_plain_jobs_wait_behind_a_job_of_the_same_transaction(store: SQLiteStore) -> None:
    batch = [(make_job(), b"", start, LIMITS) for start in (True, False, True, True)]
    receipts = await store._writer.submit(lambda transaction, _: [submissions.submit(transaction, batch)], None)
    assert [(receipt.position, receipt.claim is None) for receipt in receipts] == [
        (0, False), (0, True), (1, True), (2, True)
    ]  # fmt: skip
    assert [job["state"] for job in await stored(store)] == ["running", "queued", "queued", "queued"]


async def test_a_refused_job_of_a_transaction_does_not_affect_the_others(store: SQLiteStore) -> None:
    tasks = [make_job(task=make_task()) for _ in range(2)]
    receipts = await submit(store, [make_job(), tasks[0], tasks[1], make_job()], Limits(100, 100, 1, 100))
    assert [isinstance(receipt, QueueFull) for receipt in receipts] == [False, False, True, False]
    assert len(await stored(store)) == 3


async def test_plain_jobs_are_refused_at_the_limits(store: SQLiteStore) -> None:
    await submit(store, [make_job(task=make_task())], LIMITS)
    (refused,) = await submit(store, [make_job()], Limits(100, 100, 100, 1))
    assert isinstance(refused, TooManyQueued)
    (refused,) = await submit(store, [make_job()], Limits(0, 100, 100, 100))
    assert isinstance(refused, QueueFull)
    assert len(await stored(store)) == 1
