"""Limits of time and number for what the queue keeps for a client."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from queue_middleware import current_job
from tests.integration.test_tasks import TOMORROW, tasking
from tests.support.provider_server import Reply, providing
from tests.support.queue_client import Queue, eventually, serving
from tests.support.raw_asgi import Message, Receive, Send, http_only, respond

YEAR_9999 = "9999-12-31T00:00:00Z"


async def test_times_above_the_limits_are_refused_with_the_limit(database: Path) -> None:
    async with tasking(database, max_delay="1h", max_wait="30m") as tasks:
        assert "3600 seconds (max_delay)" in await tasks.refused(targetUrl="/work", delayUntil=YEAR_9999)
        assert "at most 1800" in await tasks.refused(targetUrl="/work", maxWaitTime=1801)
        call = {"fal_callback_timeout": "999999999"}
        refused = await tasks.queue.client.post("/fal/queue/submit/work?c={callback_url}", params=call)
    assert refused.status_code == 400
    assert refused.json()["error_type"] == "bad_request"
    assert "fal_callback_timeout is 999999999" in refused.text.replace("1e+09", "999999999")
    assert "1800 seconds (max_wait)" in refused.text


async def test_a_provider_cannot_extend_the_limits_either(database: Path) -> None:
    """A 202 with `Location` is polled for ten minutes, but never longer than the limit."""
    accepted = Reply(202, b"{}", (("location", "/later"), ("retry-after", "3600")))
    async with providing(lambda call: accepted) as provider, tasking(database, max_wait=0.2) as tasks:
        task = await tasks.run(provider.url)
    assert task["status"] == "timeout"


async def _answers(scope: Message, receive: Receive, send: Send) -> None:
    await respond(send)


async def _asks_for_its_callback(scope: Message, receive: Receive, send: Send) -> None:
    assert current_job.callback_url
    await respond(send)


def _from(queue: Queue, address: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(queue.client._transport.app, client=(address, 1))  # type: ignore[attr-defined]
    return httpx.AsyncClient(transport=transport, base_url="http://service.test")


async def test_delayed_tasks_of_many_addresses_block_no_submissions(database: Path) -> None:
    async with serving(http_only(_answers), database, max_queued=8, max_queued_per_client=4, max_tasks=12) as queue:
        statuses = []
        for number in range(5):
            async with _from(queue, f"10.1.1.{number}") as client:
                for _ in range(4):
                    task = {"targetUrl": "/work", "delayUntil": TOMORROW}
                    statuses.append((await client.post("/fal/queue/v1/tasks", json=task)).status_code)
        await queue.run("POST", "/work")
    assert statuses == [201] * 12 + [503] * 8


@pytest.mark.parametrize("target", ["/work?c={callback_url}", "/work"])
async def test_awaiting_jobs_are_limited_for_each_client(database: Path, target: str) -> None:
    app = http_only(_answers if "callback" in target else _asks_for_its_callback)
    async with serving(app, database, max_tasks_per_client=3) as queue:
        async with _from(queue, "10.1.1.1") as client:

            async def refused() -> bool:
                response = await client.post(f"/fal/queue/submit{target}")
                assert response.status_code in (200, 429), response.text
                return response.status_code == 429

            await eventually(refused)
        request_id = await queue.submit("POST", target)
        await queue.reaches(request_id, "IN_PROGRESS")
