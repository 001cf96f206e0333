"""The metrics of messaging, with the real SDK of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.queue_client import eventually, serving
from tests.support.spans import Metrics


async def answer(request: Request) -> Response:
    return Response(status_code=int(request.path_params["status"]))


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
