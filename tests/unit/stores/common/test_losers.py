"""Operations on a store that can tell which claims of a batch are lost: they need not be repeated one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from queue_middleware.jobs.log_lines import LogLevel, LogLine
from queue_middleware.jobs.models import Claim, Progress, WebhookKind
from queue_middleware.settings import Settings
from queue_middleware.stores.common import deliveries, jobs, logs
from queue_middleware.stores.common.codec import encode_lines
from queue_middleware.stores.common.operation_costs import ended_attempt
from queue_middleware.stores.common.transaction import Transaction
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.stores.sqlite.sql import execute_rows
from queue_middleware.stores.sqlite.transaction import SQLiteTransaction
from queue_middleware.webhooks.circuit import AttemptOutcome
from queue_middleware.webhooks.fairness import flow_of
from queue_middleware.webhooks.models import DeliveryClaim, DeliveryState, ReceiverHealth
from tests.support.factories import claim_deliveries, make_delivery_attempt, make_job, make_response

HEALTHY = "https://healthy.example/hook"
Rows = Sequence[tuple[Any, ...]]
P = TypeVar("P")
R = TypeVar("R")


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SQLiteStore]:
    def held(transaction: SQLiteTransaction, name: str, rows: Rows, common: tuple[Any, ...] = ()) -> Rows:
        return [row for row in rows if execute_rows(transaction.connection, name, [row], common)]

    monkeypatch.setattr(SQLiteTransaction, "held", held)
    store = SQLiteStore(Settings.load({"database": str(tmp_path / "queue.sqlite3"), "min_free_disk": 0}, {}))
    await store.open()
    yield store
    await store.close()


async def together(store: SQLiteStore, operation: Callable[[Transaction, Sequence[P]], list[R]], batch: Sequence[P]) -> list[R]:
    return await store._writer.submit(lambda transaction, _: [operation(transaction, batch)], None)


async def begin(store: SQLiteStore) -> list[Claim]:
    """Start three jobs and release the second."""
    claims: list[Claim] = []
    for number in range(3):
        new = make_job(webhook=f"https://r{number}.example/hook", webhook_kinds=(WebhookKind.PROGRESS,))
        result = await store.submit(new, start=True)
        assert result.claim
        claims.append(result.claim)
    await store.release(claims[1])
    return claims


def make_delivery(claim: Claim, token: int) -> DeliveryClaim:
    host = "healthy.example"
    flow = flow_of(host, claim.client)
    return DeliveryClaim(0, token, HEALTHY, host, 1, claim.key, claim.request_id, health=ReceiverHealth.HEALTHY, flow=flow)


async def make_healthy(store: SQLiteStore) -> None:
    receipt = await store.submit(make_job(webhook=HEALTHY), start=True)
    assert receipt.claim
    await store.complete(receipt.claim, make_response())
    (delivery,) = await claim_deliveries(store)
    outcome = AttemptOutcome.PROMPT
    await store.webhooks.settle(delivery, make_delivery_attempt(), delivered=True, retry_in=None, outcome=outcome)


async def test_jobs_of_held_claims_end(store: SQLiteStore) -> None:
    claims = await begin(store)
    ends = [ended_attempt(claim, make_response()) for claim in claims]
    assert await together(store, jobs.finish, ends) == [True, False, True]
    assert [delivery.key for delivery in await claim_deliveries(store)] == [claims[0].key, claims[2].key]
    assert await together(store, jobs.finish, ends) == [True, False, True]
    assert await claim_deliveries(store) == []


async def test_two_claims_of_one_job_may_end_together(store: SQLiteStore) -> None:
    """This process lost the job, claimed it again, and the first attempt ends after all."""
    await make_healthy(store)
    receipt = await store.submit(make_job(webhook=HEALTHY), start=True)
    assert receipt.claim
    await store.release(receipt.claim)
    (again,) = await store.claim(1)
    reservations = [deliveries.Reservation(make_delivery(claim, token)) for token, claim in enumerate((again, receipt.claim))]
    ends = [
        (ended_attempt(claim, make_response()), one) for claim, one in zip((again, receipt.claim), reservations, strict=True)
    ]
    assert await together(store, deliveries.complete_and_claim, ends) == [True, False]
    assert [one.delivery_id is not None for one in reservations] == [True, False]


async def test_lines_of_held_claims_are_stored(store: SQLiteStore) -> None:
    claims = await begin(store)
    lines = encode_lines([LogLine(1_700_000_000_000_000, LogLevel.INFO, "line")])
    assert await together(store, logs.log, [(claim, 1, lines, Progress(0.5)) for claim in claims]) == [True, False, True]
    assert [delivery.key for delivery in await claim_deliveries(store)] == [claims[0].key, claims[2].key]


async def test_held_deliveries_are_settled(store: SQLiteStore) -> None:
    await together(store, jobs.finish, [ended_attempt(claim, make_response()) for claim in await begin(store)])
    mine = await claim_deliveries(store)
    await store.webhooks.release([mine[0]])
    settling = [(delivery, make_delivery_attempt(), True, None, None, 0) for delivery in mine]
    settled = await together(store, deliveries.settle, settling)
    assert [one.held for one in settled] == [False, True]
    assert (await store.counts()).deliveries == {DeliveryState.DELIVERED: 1, DeliveryState.PENDING: 1}
