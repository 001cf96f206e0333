"""With an injected clock, a test moves time: what is due later happens without waiting."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware, current_job
from tests.support.clock import ManualClock
from tests.support.provider_server import providing
from tests.support.providers import Replicate
from tests.support.queue_client import Queue, connected, eventually, stored_jobs
from tests.support.webhook_receiver import receiving

HOUR = 3600.0


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


class Service:
    """The queue of one application, with a clock that the test moves."""

    def __init__(self, database: Path, **options: Any) -> None:
        self.clock = ManualClock()
        self.wrap(Starlette(routes=[Route("/hello", hello, methods=["POST"])]), database, **options)
        self.queue: Queue

    def wrap(self, app: Starlette, database: Path, **options: Any) -> None:
        self.app = QueueMiddleware(app, database=database, min_free_disk=0, _clock=self.clock.seconds, **options)

    def advance(self, seconds: float) -> None:
        """Move the clock and let the queue do what is due."""
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
        assert len(receiver.webhooks_for(request_id)) == 1
        service.advance(2 * HOUR)  # the wait is an hour ± 20 %
        await eventually(lambda: len(receiver.webhooks_for(request_id)) == 2)
        first, second = (int(webhook.headers["x-fal-webhook-timestamp"]) for webhook in receiver.webhooks_for(request_id))
        assert second - first == 2 * HOUR  # signed with the same clock


async def _attempts(service: Service, number: int) -> bool:
    deliveries = await service.app.deliveries()
    return bool(deliveries) and len(await service.app.delivery_attempts(deliveries[0].id)) == number


async def test_log_lines_have_the_time_of_the_clock(database: Path) -> None:
    async def moody(request: Request) -> Response:
        logging.getLogger("app").warning("captured")
        current_job.log("reported")
        current_job.report_progress(0.5)
        return PlainTextResponse("later", 503 if current_job.attempt == 1 else 200, headers={"retry-after": "0"})

    service = Service(database)
    service.wrap(Starlette(routes=[Route("/moody", moody, methods=["POST"])]), database)
    async with connected(service.app) as queue:
        request_id = await queue.submit("POST", "/moody")
        await queue.reaches(request_id, "COMPLETED")
        lines = await queue.logs(request_id)
    assert [line["message"].partition(";")[0] for line in lines[:4]] == [
        "captured", "reported", "50%", "attempt 1 of 3 ended with status 503"
    ]  # fmt: skip
    assert len(lines) == 7
    assert {line["timestamp"] for line in lines} == {"2027-01-15T08:00:00.000000"}


async def test_callbacks_are_verified_by_the_clock(database: Path) -> None:
    secret = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
    allowed = {"outbound_allow": "127.0.0.1", "task_targets": "127.0.0.1", "callback_keys": f"127.0.0.1={secret}"}
    async with running(database, **allowed) as service, providing() as provider:
        task = {"targetUrl": f"{provider.url}/start", "body": "{callback_url}"}
        created = await service.queue.client.post("/fal/queue/v1/tasks", json=task)
        assert created.status_code == 201, created.text
        await eventually(lambda: provider.calls)
        path, body = urlsplit(provider.calls[0].body.decode()).path, b'{"status": "OK"}'
        refused = await service.queue.client.post(path, content=body)
        assert refused.status_code == 401, refused.text
        signed = Replicate.signed("msg_1", str(int(service.clock.seconds())), body, secret)
        received = await service.queue.client.post(path, content=body, headers=signed)
        assert received.status_code == 200, received.text


async def test_retention_deletes_an_old_request(database: Path) -> None:
    async with running(database, retention=HOUR) as service:
        request_id = await service.queue.submit("POST", "/hello")
        await service.queue.reaches(request_id, "COMPLETED")
        service.advance(HOUR / 2)
        assert stored_jobs(database) == 1
        service.advance(HOUR)
        await eventually(lambda: stored_jobs(database) == 0)
