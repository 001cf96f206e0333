"""The metrics of messaging, with the real SDK of OpenTelemetry."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware
from queue_middleware.observability.otel import gauges
from tests.support.queue_client import connected, eventually, serving
from tests.support.spans import Metrics


async def answer(request: Request) -> Response:
    return Response(status_code=int(request.path_params["status"]))


DATABASE = "queue_middleware.database.name"
APP = Starlette(routes=[Route("/{status}", answer)])


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    with Metrics().as_provider() as metrics:
        yield metrics


def by_error(points: list[Any]) -> dict[str | None, int]:
    """The value of a counter, or the number of observations, by the error."""
    return {point.attributes.get("error.type"): getattr(point, "value", getattr(point, "count", 0)) for point in points}


async def test_submissions_and_attempts_are_counted_and_measured(metrics: Metrics, database: Path) -> None:
    async with serving(APP, database, paths=["/*"], max_queued=1, concurrency=1, max_attempts=1) as queue:
        await queue.run("GET", "/200")
        await queue.run("GET", "/500")
        await eventually(lambda: sum(by_error(metrics.points("messaging.process.duration")).values()) == 2)
        sent, consumed = metrics.points("messaging.client.sent.messages"), metrics.points("messaging.client.consumed.messages")
        assert by_error(sent) == {None: 2}
        assert by_error(consumed) == {None: 2}
        assert by_error(metrics.points("messaging.client.operation.duration")) == {None: 2}
        processed = metrics.points("messaging.process.duration")
    assert by_error(processed) == {None: 1, "500": 1}
    assert dict(sent[0].attributes) == {
        "messaging.system": "queue_middleware",
        "messaging.operation.name": "submit",
        "messaging.destination.template": "/*",
    }
    assert processed[0].explicit_bounds[-1] == 3600


async def test_a_refused_submission_is_counted_with_its_error(metrics: Metrics, database: Path) -> None:
    async with serving(APP, database, max_queued=1, concurrency=1) as queue:
        assert (await queue.client.get("/fal/queue/submit/200?fal_max_queue_length=x")).status_code == 400
        assert metrics.points("messaging.client.sent.messages") == []
        await queue.submit("GET", "/200", headers={"Idempotency-Key": "one"})
        reused = await queue.client.get("/fal/queue/submit/201", headers={"Idempotency-Key": "one"})
        assert reused.status_code == 422
        assert by_error(metrics.points("messaging.client.sent.messages")) == {None: 1, "IdempotencyKeyReused": 1}


# --- gauges


@pytest.fixture
def reads_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "READ_EVERY", 0.0)


async def gauge(metrics: Metrics, name: str) -> list[tuple[float, dict[str, Any]]]:
    """The values and attributes of a gauge, as a reader with a thread of its own receives them."""
    points = await asyncio.to_thread(metrics.points, f"queue_middleware.{name}")
    return [(point.value, dict(point.attributes)) for point in points]


@pytest.mark.usefixtures("reads_each_time")
async def test_a_reader_receives_the_gauges_of_the_queue(metrics: Metrics, database: Path) -> None:
    app = QueueMiddleware(APP, database=database, min_free_disk=0, paths=["/*"], concurrency=3, max_queued=7)
    async with connected(app) as queue:
        await app.pause()
        await queue.submit("GET", "/200")
        own = {DATABASE: str(database)}
        route = {**own, "messaging.destination.template": "/*"}
        assert await gauge(metrics, "requests") == [(1, {**route, "queue_middleware.state": "queued"})]
        assert await gauge(metrics, "oldest_claimable") == [(0, route)]
        assert await gauge(metrics, "paused") == [(1, {**own, "messaging.destination.template": "*"})]
        assert await gauge(metrics, "slots.limit") == [(3, own)]
        assert await gauge(metrics, "processes") == [(1, own)]
        assert await gauge(metrics, "queue_limit") == [(7, own)]
        sizes = await gauge(metrics, "database.size")
        assert [attributes["queue_middleware.database.part"] for _, attributes in sizes] == ["main", "wal"]


@pytest.mark.usefixtures("reads_each_time")
async def test_only_the_oldest_process_reports_until_it_stops(metrics: Metrics, database: Path) -> None:
    options: dict[str, Any] = {"name": "shared", "metrics": False}
    async with serving(APP, database, concurrency=2, **options):
        older = gauges._gauges[metrics.provider].queues
        async with serving(APP, database, concurrency=3, **options):
            both = gauges._gauges[metrics.provider].queues
            assert [await asyncio.to_thread(queue._read) is None for queue in both] == [False, True]
            assert [value for value, _ in await gauge(metrics, "slots.limit")] == [5]
        assert gauges._gauges[metrics.provider].queues == older
    async with serving(APP, database, concurrency=3, **options):
        assert [value for value, _ in await gauge(metrics, "slots.limit")] == [3]
    assert await gauge(metrics, "slots.limit") == []


@pytest.mark.usefixtures("reads_each_time")
async def test_a_killed_process_does_not_count_as_the_oldest(metrics: Metrics, database: Path) -> None:
    killed = QueueMiddleware(APP, database=database, min_free_disk=0, name="shared", concurrency=2)
    async with connected(killed), serving(APP, database, name="shared", concurrency=3):
        killed._runtime.services.stores.database._files.liveness.disown()  # closes the file, as the end of a process does
        assert [value for value, _ in await gauge(metrics, "slots.limit")] == [3]


async def test_the_event_loop_is_not_blocked_by_a_reader_in_its_thread(metrics: Metrics, database: Path) -> None:
    async with serving(APP, database, concurrency=2):
        assert metrics.points("queue_middleware.slots.limit") == []
        await eventually(lambda: [point.value for point in metrics.points("queue_middleware.slots.limit")] == [2])


async def test_the_gauges_of_two_queues_do_not_replace_each_other(metrics: Metrics, database: Path) -> None:
    other = database.with_name("other.sqlite3")
    async with serving(APP, database, concurrency=2), serving(APP, other, concurrency=3, name="other"):
        found = await gauge(metrics, "slots.limit")
    assert found == [(2, {DATABASE: str(database)}), (3, {DATABASE: str(other)})]
