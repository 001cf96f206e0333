"""Requests that end the process fail in the end, and the other requests of that process do not."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.queue_client import Queue, eventually

from .servers import Server, serving, uvicorn

pytestmark = pytest.mark.slow

PATIENCE = 120.0
"""Seconds for three attempts of each crashing request, with a new process after each."""


async def final_status(server: Server, request_id: str) -> dict[str, Any] | None:
    """The final status; None before, and while no process responds."""
    async with server.client() as client:
        try:
            status = await Queue(client).status(request_id)
        except httpx.TransportError:
            return None
    return status if status["status"] == "COMPLETED" else None


@pytest.mark.parametrize("how", ["exit", "kill"])
@pytest.mark.parametrize("workers", [2, 3])
async def test_other_requests_of_crashing_processes_finish(tmp_path: Path, workers: int, how: str) -> None:
    async with serving(uvicorn("--workers", str(workers)), tmp_path, workers, concurrency=8) as server:
        async with server.queue() as queue:
            innocent = [await queue.submit("POST", "/square", json={"n": n, "seconds": 1}) for n in range(5)]
            guilty = [await queue.submit("POST", "/crashing", json={"how": how, "seconds": 0.5}) for _ in range(2)]
        for request_id in guilty:
            status = await eventually(lambda request_id=request_id: final_status(server, request_id), PATIENCE)
            assert status["error_type"] == "runner_disconnected"
            assert server.lines("crashing").count(request_id) == 3
        for request_id in innocent:
            status = await eventually(lambda request_id=request_id: final_status(server, request_id), PATIENCE)
            assert "error" not in status


async def test_a_request_whose_handler_signals_its_own_process_ends(tmp_path: Path) -> None:
    async with serving(uvicorn(), tmp_path, shutdown_timeout="200ms", max_attempts=1) as server:
        async with server.queue() as queue:
            request_id = await queue.submit("POST", "/crashing", json={"how": "signal"})
        for _ in range(2):
            assert await server.ended() in (0, -signal.SIGTERM)
            await server.start()
        assert await server.ended() in (0, -signal.SIGTERM)
        await server.start()
        status = await eventually(lambda: final_status(server, request_id))
        assert "again and again" in status["error"]
        assert server.lines("crashing") == [request_id] * 3
