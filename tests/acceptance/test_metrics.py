"""Four processes on one port: every scrape shows the numbers of all, whichever responds, also after kills and restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.queue_client import Queue, eventually

from .servers import Server, serving, uvicorn

pytestmark = pytest.mark.slow

SCRAPES = 24
"""So many new connections that with near certainty each of four processes responds to one of them."""


async def scrape(server: Server, name: str, **labels: str) -> float:
    """The sum of a counter's values, through a connection of its own."""
    async with server.client() as client:
        response = await client.get("/fal/queue/metrics")
    assert response.status_code == 200, response.text
    found = [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]
    chosen = [
        sample for sample in found if sample.name == f"queue_middleware_{name}" and labels.items() <= sample.labels.items()
    ]
    return sum(sample.value for sample in chosen)


async def run(queue: Queue, numbers: range) -> None:
    ids = await asyncio.gather(*(queue.submit("POST", "/square", json={"n": number}) for number in numbers))
    await asyncio.gather(*(queue.response(request_id) for request_id in ids))


async def every_scrape(server: Server, name: str, **labels: str) -> set[float]:
    return {await scrape(server, name, **labels) for _ in range(SCRAPES)}


async def shows(server: Server, expected: float, name: str, **labels: str) -> None:
    """Each process shows this number, once the last counts are stored."""

    async def is_shown() -> bool:
        return await scrape(server, name, **labels) == expected

    await eventually(is_shown)
    assert await every_scrape(server, name, **labels) == {expected}


async def test_every_process_shows_the_numbers_of_all(tmp_path: Path) -> None:
    options = {"metrics_public": "true"}
    async with serving(uvicorn("--workers", "4"), tmp_path, workers=4, **options) as server, server.queue() as queue:
        await run(queue, range(60))
        await shows(server, 60, "requests_submitted_total")
        await shows(server, 60, "requests_finished_total", outcome="2xx")
        await shows(server, 60, "request_seconds_count")
        await shows(server, 4, "processes")

        killed = server.workers()[0]
        server.kill_worker(killed)
        await eventually(lambda: killed not in server.workers() and len(server.workers()) == 4)
        await shows(server, 60, "requests_submitted_total")
        await run(queue, range(60, 100))
        await shows(server, 100, "requests_finished_total", outcome="2xx")

        await run(queue, range(100, 110))
        await server.stop()  # what was counted in the last second is stored at the stop
        await server.start(workers=4)
        await shows(server, 110, "requests_submitted_total")
        await shows(server, 110, "requests_finished_total", outcome="2xx")
