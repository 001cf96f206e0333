"""What an operation does when another process commits between its reads and its writes.

SQLite lets one transaction write at a time; for other stores this is usual. Here the change is made inside the transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.settings import Settings
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.stores.sqlite.transaction import SQLiteTransaction
from queue_middleware.webhooks.circuit import FAILURE_THRESHOLD, AttemptOutcome
from queue_middleware.webhooks.models import Capacity, DeliveryClaim, FlowRecord, ReceiverHealth, Settled
from tests.support.clock import ManualClock
from tests.support.factories import (
    claim_deliveries,
    claim_polls,
    make_delivery_attempt,
    make_job,
    make_response,
    make_task,
    make_wait,
)

After = Callable[[str, str], None]
"""Executes a statement once, after the next query of this name."""


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Iterator[After]:
    changes: dict[str, str] = {}
    original = SQLiteTransaction.all

    def read(transaction: SQLiteTransaction, name: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        rows = original(transaction, name, parameters)
        if name in changes:
            assert transaction.connection.execute(changes.pop(name)).rowcount
        return rows

    monkeypatch.setattr(SQLiteTransaction, "all", read)
    yield changes.__setitem__
    assert not changes


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SQLiteStore]:
    settings = Settings.load({"database": str(tmp_path / "queue.sqlite3"), "min_free_disk": 0}, {})
    store = SQLiteStore(settings, clock, clock.boot)
    await store.open()
    yield store
    await store.close()


async def due(store: SQLiteStore, host: str = "a.example") -> None:
    result = await store.submit(make_job(webhook=f"https://{host}/hook"), start=True)
    assert result.claim
    await store.complete(result.claim, make_response())


async def waiting(store: SQLiteStore) -> int:
    """A task whose first poll is due in five seconds."""
    poll = PollConfig("https://a.example/x", "status", ("done",), ())
    claim = (await store.submit(make_job(task=make_task(poll=poll)), start=True)).claim
    assert claim
    assert claim.task
    await store.tasks.complete_attempt(claim, claim.task, make_response(), make_wait(600.0, poll_in=5.0))
    return claim.key


async def fail(store: SQLiteStore, delivery: DeliveryClaim, outcome: AttemptOutcome = AttemptOutcome.FAILED) -> Settled:
    return await store.webhooks.settle(delivery, make_delivery_attempt(500), delivered=False, retry_in=0.0, outcome=outcome)


async def fail_until_open(store: SQLiteStore, outcome: AttemptOutcome) -> None:
    await due(store)
    for _ in range(FAILURE_THRESHOLD):
        (delivery,) = await claim_deliveries(store)
        await fail(store, delivery, outcome)


async def health(store: SQLiteStore, host: str = "a.example") -> FlowRecord:
    (found,) = [one for one in await store.webhooks.receivers(list(ReceiverHealth)) if one.host == host]
    return found


async def test_failures_found_by_two_processes_are_added(store: SQLiteStore, after: After) -> None:
    await due(store)
    (delivery,) = await claim_deliveries(store)
    after("health_of_flows", "UPDATE flow SET health = 'failing', failures = 3, failing_since = 7")
    settled = await fail(store, delivery)
    assert settled.flow_change is None  # the other process has reported it
    found = await health(store)
    assert (found.health, found.failures, found.failing_since) == (ReceiverHealth.FAILING, 4, 7)


async def test_a_failure_after_those_of_another_process_opens_the_circuit(store: SQLiteStore, after: After) -> None:
    await due(store)
    (delivery,) = await claim_deliveries(store)
    count = FAILURE_THRESHOLD - 1
    after("health_of_flows", f"UPDATE receiver SET health = 'failing', failures = {count}, failing_since = 7, suspects = 'a b'")
    settled = await fail(store, delivery, AttemptOutcome.UNREACHED)
    assert settled.host_change == (ReceiverHealth.FAILING, ReceiverHealth.OPEN)


async def test_only_health_that_another_process_has_changed_is_updated_again(store: SQLiteStore, after: After) -> None:
    await due(store, "a.example")
    await due(store, "b.example")
    mine = await claim_deliveries(store)
    after("health_of_flows", "UPDATE flow SET health = 'failing', failures = 2, failing_since = 7 WHERE host = 'a.example'")
    for delivery in mine:
        await fail(store, delivery)
    assert [(await health(store, host)).failures for host in ("a.example", "b.example")] == [3, 1]


async def test_an_attempt_at_a_receiver_deleted_meanwhile_is_settled(store: SQLiteStore, after: After) -> None:
    await due(store)
    (delivery,) = await claim_deliveries(store)
    after("health_of_flows", "DELETE FROM flow")
    settled = await fail(store, delivery)
    assert settled.held
    assert settled.flow_change is None


@pytest.mark.parametrize(
    ("table", "outcome"), [("flow", AttemptOutcome.FAILED), ("receiver", AttemptOutcome.UNREACHED)], ids=["flow", "host"]
)
async def test_a_probe_of_another_process_is_not_sent_twice(
    store: SQLiteStore, clock: ManualClock, after: After, table: str, outcome: AttemptOutcome
) -> None:
    await fail_until_open(store, outcome)
    clock.advance(60)
    until = clock() + 60_000
    after("due_flows", f"UPDATE {table} SET open_until = {until} WHERE health = 'open'")
    given = await store.webhooks.claim(Capacity(5, 5))
    assert given.deliveries == []
    assert given.next_in == 60
    clock.advance(60)
    assert len(await claim_deliveries(store)) == 1


async def test_a_poll_claimed_by_another_process_is_left_out(store: SQLiteStore, clock: ManualClock, after: After) -> None:
    first, second, third = [await waiting(store) for _ in range(3)]
    clock.advance(5)
    after("due_polls", f"UPDATE task SET owner = 'another', token = 1, lease_until = 1 WHERE job_id = {second}")
    polls = await claim_polls(store)
    assert [poll.key for poll in polls] == [first, third]
    assert [poll.host for poll in polls] == ["https://a.example:443"] * 2
    assert await claim_polls(store) == []
