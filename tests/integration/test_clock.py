"""With one injected clock a test moves time: what is due later happens without waiting for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware
from tests.support.clock import ManualClock
from tests.support.provider_server import Told, providing
from tests.support.queue_client import Queue, connected, eventually, stored_jobs
from tests.support.webhook_receiver import receiving
from tests.support.webhook_sender import SECRET, Sender

HOUR = 3600.0


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


class Service:
    """The queue of one application, and its clock, which stands still until a test moves it."""

    def __init__(self, database: Path, **options: Any) -> None:
        self.clock = ManualClock()
        app = Starlette(routes=[Route("/hello", hello, methods=["POST"])])
        self.app = QueueMiddleware(app, database=database, min_free_disk=0, _clock=self.clock.seconds, **options)
        self.queue: Queue

    def advance(self, seconds: float) -> None:
        """Move the clock, and let the queue check what is due by it."""
        self.clock.advance(seconds)
        self.app._runtime.services.check_due()


@asynccontextmanager
async def running(database: Path, **options: Any) -> AsyncIterator[Service]:
    service = Service(database, **options)
    async with connected(service.app) as service.queue:
        yield service


async def test_a_delayed_task_becomes_due(database: Path) -> None:
    async with running(database) as service:
        in_an_hour = datetime.fromtimestamp(service.clock.seconds(), UTC) + timedelta(hours=1)
        body = {"targetUrl": "/hello", "delayUntil": in_an_hour.isoformat()}
        created = await service.queue.client.post("/fal/queue/v1/tasks", json=body)
        assert created.status_code == 201, created.text
        task_id = created.json()["task"]["id"]
        service.advance(HOUR - 1)
        assert (await service.queue.status(task_id))["status"] == "IN_QUEUE"
        service.advance(2)
        await service.queue.reaches(task_id, "COMPLETED")


async def test_a_failed_webhook_is_sent_again(database: Path) -> None:
    statuses = [503, 200]
    async with (
        receiving(lambda webhook: statuses.pop(0)) as receiver,
        running(database, outbound_allow=["127.0.0.1"], webhook_schedule=[HOUR]) as service,
    ):
        request_id = await service.queue.submit("POST", "/hello", params={"fal_webhook": receiver.url})
        await eventually(lambda: _attempts(service, 1))
        assert len(receiver.of(request_id)) == 1
        service.advance(2 * HOUR)  # the wait is an hour ± 20 %
        await eventually(lambda: len(receiver.of(request_id)) == 2)
        first, second = (int(webhook.headers["x-fal-webhook-timestamp"]) for webhook in receiver.of(request_id))
        assert second - first == 2 * HOUR  # signed by the same clock


async def _attempts(service: Service, number: int) -> bool:
    deliveries = await service.app.deliveries()
    return bool(deliveries) and len(await service.app.delivery_attempts(deliveries[0].id)) == number


async def test_the_signature_of_a_callback_is_recent_by_the_same_clock(database: Path) -> None:
    options = {"outbound_allow": ["127.0.0.1"], "task_targets": ["127.0.0.1"], "callback_keys": f"127.0.0.1={SECRET}"}
    async with providing(lambda asked: Told(200, b"{}")) as target, running(database, **options) as service:
        client = service.queue.client
        created = await client.post("/fal/queue/v1/tasks", json={"targetUrl": f"{target.url}?to={{callback_url}}"})
        path = created.json()["callbackUrl"].partition("/fal/")[2]
        headers = Sender().standard(at=service.clock.seconds(), body=b"{}", versions="v1")
        called = await client.post(f"/fal/{path}", content=b"{}", headers=headers)
        assert called.status_code == 200, called.text


async def test_retention_deletes_an_old_request(database: Path) -> None:
    async with running(database, retention=HOUR) as service:
        request_id = await service.queue.submit("POST", "/hello")
        await service.queue.reaches(request_id, "COMPLETED")
        service.advance(HOUR / 2)
        assert stored_jobs(database) == 1
        service.advance(HOUR)
        await eventually(lambda: stored_jobs(database) == 0)
