"""Numbers that all processes add to, and what is read of the present state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from queue_middleware.errors import StoreBusy
from queue_middleware.events import Finished
from queue_middleware.jobs.outcomes import CANCELLED
from queue_middleware.jobs.pauses import ALL_ROUTES, Pause
from queue_middleware.jobs.processes import Usage
from queue_middleware.observability.metrics.meter import Meter
from queue_middleware.stores.common import metrics
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import make_job, make_response, make_task, make_wait

Numbers = dict[tuple[str, str, int], float]


class Ticking:
    """A clock in seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Ticking:
    return Ticking()


@pytest.fixture
def counting(stores: Stores, clock: ManualClock, seconds: Ticking) -> Callable[[], Any]:
    async def counting() -> tuple[Any, Meter]:
        store: Any = await stores.open()
        store.metrics._monotonic = seconds
        meter = Meter(lambda: clock() / 1000)
        store.metrics.attach(meter)
        return store, meter

    return counting


async def stored(store: Any) -> Numbers:
    found = await store.metrics.read()
    return {row[:3]: row[3] for row in found.rows}


async def gauges(store: Any) -> dict[tuple[str, str], float]:
    return {row[:2]: row[3] for row in (await store.metrics.read()).rows}


async def test_the_numbers_of_all_processes_are_added(counting) -> None:
    (one, first), (other, second) = await counting(), await counting()
    first.submitted("/work")
    second.submitted("/work")
    await one.metrics.close()
    await other.metrics.close()
    for store in (one, other):
        assert (await stored(store))["requests_submitted_total", "/work", 0] == 2


async def test_numbers_join_a_transaction_that_is_made_anyway(counting, seconds: Ticking) -> None:
    store, meter = await counting()
    meter.submitted("/work")
    await store.submit(make_job())
    assert (await stored(store))["requests_submitted_total", "/work", 0] == 1


async def test_they_join_at_most_once_a_second(counting, seconds: Ticking) -> None:
    store, meter = await counting()
    for expected in (1, 1, 3):
        meter.submitted("/work")
        await store.submit(make_job())
        assert (await stored(store))["requests_submitted_total", "/work", 0] == expected
        seconds.now += 0.6


async def test_an_idle_queue_stores_its_last_numbers_once_and_then_nothing(counting, seconds: Ticking, monkeypatch) -> None:
    store, meter = await counting()
    added: list[object] = []

    def add(transaction: Any, batch: Any) -> list[None]:
        added.extend(batch)
        return metrics_add(transaction, batch)

    metrics_add = metrics.add
    monkeypatch.setattr(metrics, "add", add)
    meter.submitted("/work")
    for _ in range(5):
        await store.metrics.flush()
        seconds.now += 1.0
    assert len(added) == 1


async def test_numbers_that_were_not_stored_are_stored_later(counting, seconds: Ticking, monkeypatch) -> None:
    store, meter = await counting()
    meter.submitted("/work")
    with monkeypatch.context() as broken:
        broken.setattr(metrics, "add", lambda transaction, batch: [StoreBusy("no", 1)] * len(batch))
        with pytest.raises(StoreBusy):
            await store.metrics.flush()
    seconds.now += 1.0
    await store.metrics.flush()
    assert (await stored(store))["requests_submitted_total", "/work", 0] == 1


async def test_they_survive_a_restart(counting) -> None:
    store, meter = await counting()
    meter.submitted("/work")
    await store.metrics.close()
    began = (await store.metrics.read()).created_at
    await store.close()
    store, meter = await counting()
    meter.submitted("/work")
    await store.metrics.close()
    assert (await stored(store))["requests_submitted_total", "/work", 0] == 2
    assert (await store.metrics.read()).created_at == began > 1.6e12


async def test_the_route_of_a_request_that_ended_elsewhere_is_looked_up(counting) -> None:
    store, meter = await counting()
    receipt = await store.submit(make_job(route="/items/{id}"))
    meter.on_event(Finished.of(receipt.request_id, 0, CANCELLED, 0.0))
    meter.on_event(Finished.of("018f3b1e-0000-7000-8000-000000000001", 0, CANCELLED, 0.0))  # deleted meanwhile
    await store.metrics.close()
    found = await stored(store)
    assert found["requests_finished_total", "/items/{id}\ncancelled", 0] == 1
    assert found["requests_finished_total", "other\ncancelled", 0] == 1


async def test_transactions_are_counted(counting) -> None:
    store, meter = await counting()
    await asyncio.gather(*(store.submit(make_job()) for _ in range(5)))
    meter.submitted("/work")
    await store.metrics.close()
    found = await stored(store)
    assert found["commit_operations", "", 0] >= 5
    assert sum(value for (name, _, bucket), value in found.items() if name == "commit_seconds" and bucket) >= 1


async def test_tallies_are_kept_by_minute_for_48_hours(counting, clock: ManualClock) -> None:
    store, meter = await counting()
    minute, began = 60, clock()
    for passed in (0, 1, 47 * 60, 0):
        clock.advance(passed * minute)
        meter.submitted("/work")
        await store.metrics.close()

    async def since(time: int) -> list[Any]:
        return await store.metrics.tallies(["requests_submitted_total"], time)

    assert await since(began) == [("requests_submitted_total", "/work", 0, 4)]
    assert await since(clock()) == [("requests_submitted_total", "/work", 0, 2)]
    clock.advance(2 * 60 * minute)
    meter.submitted("/work")
    await store.metrics.close()
    assert await since(0) == [("requests_submitted_total", "/work", 0, 3)]


async def test_unended_requests_are_shown_by_state_and_route(stores: Stores, clock: ManualClock) -> None:
    store: Any = await stores.open()
    await store.submit(make_job(route="/run"), start=True)
    receipt = await store.submit(make_job(route="/wait", task=make_task()), start=True)
    await store.tasks.complete_attempt(receipt.claim, receipt.claim.task, make_response(), make_wait())
    for route in ("/a", "/a", "/b"):
        await store.submit(make_job(route=route))
    await store.submit(make_job(route="/a", due_at=clock() + 60_000, task=make_task()))
    clock.advance(7)
    found = await gauges(store)
    assert {key[1]: value for key, value in found.items() if key[0] == "requests"} == {
        "running\n/run": 1,
        "awaiting\n/wait": 1,
        "queued\n/a": 2,
        "queued\n/b": 1,
        "delayed\n/a": 1,
    }
    assert {key[1]: value for key, value in found.items() if key[0] == "oldest_claimable_seconds"} == {
        "/run": 0,
        "/wait": 0,
        "/a": 7,
        "/b": 7,
    }


async def test_beyond_the_limit_requests_are_counted_without_their_routes(stores: Stores, monkeypatch) -> None:
    monkeypatch.setattr("queue_middleware.stores.common.gauges._MOST", 3)
    store: Any = await stores.open()
    for _ in range(5):
        await store.submit(make_job(route="/a"))
    found = await gauges(store)
    assert {key[1]: value for key, value in found.items() if key[0] == "requests"} == {"queued\n/a": 3, "queued\nother": 2}


@pytest.mark.parametrize(("route", "ages"), [("/a", {"/a": 0, "/b": 9}), (ALL_ROUTES, {"/a": 0, "/b": 0})])
async def test_a_request_of_a_paused_route_is_not_claimable(
    stores: Stores, clock: ManualClock, route: str, ages: dict[str, int]
) -> None:
    store: Any = await stores.open()
    await store.operations.pause(Pause(route, "ada", "", clock(), clock() + 60_000))
    for name in ages:
        await store.submit(make_job(route=name))
    clock.advance(9)
    found = await gauges(store)
    assert {key[1]: value for key, value in found.items() if key[0] == "oldest_claimable_seconds"} == ages
    assert found["paused", route] == 1
    clock.advance(60)
    assert ("paused", route) not in await gauges(store)


async def test_webhooks_and_receivers_are_shown_by_state(stores: Stores, clock: ManualClock) -> None:
    store: Any = await stores.open()
    for _ in range(2):
        claim = (await store.submit(make_job(webhook="https://hooks.test/secret"), start=True)).claim
        await store.complete(claim, make_response())
    clock.advance(4)
    found = await gauges(store)
    assert found["webhooks", "pending"] == 2
    assert found["webhooks", "dead"] == found["webhooks", "sending"] == 0
    assert found["webhook_oldest_due_seconds", ""] == 4
    assert found["receivers", "new"] == 1
    assert "hooks.test" not in str(found)


async def test_the_gauges_of_processes_are_sums_over_those_that_run(stores: Stores) -> None:
    one, other, killed = [await stores.open() for _ in range(3)]
    for store, usage in ((one, Usage(2, 1, 5)), (other, Usage(1, 0, 2)), (killed, Usage(4, 4, 4))):
        await store.operations.register(4)
        await asyncio.to_thread(store.renew, (), usage)
    stores.die(killed)
    found = await gauges(one)
    names = ("processes", "slots", "slots_busy", "slots_stuck", "streams")
    assert [found[name, ""] for name in names] == [2, 8, 3, 1, 7]
