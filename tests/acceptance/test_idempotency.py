"""With an `Idempotency-Key` a request is created once, whichever processes receive it and whatever happens to them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from tests.support.queue_client import eventually, stored_jobs

from .servers import Server, serving, uvicorn

pytestmark = pytest.mark.slow

AT_ONCE = 20
KILLS = 200
KEYS = {"api_keys": "alice:0123456789,bob:0123456789"}
ALICE, BOB = {"authorization": "Key alice:0123456789"}, {"authorization": "Key bob:0123456789"}


def call(form: str, number: int) -> dict[str, Any]:
    """URL and body of a request."""
    if form == "task":
        return {"url": "/fal/queue/v1/tasks", "json": {"targetUrl": "/square", "body": f'{{"n": {number}}}'}}
    return {"url": "/fal/queue/submit/square", "json": {"n": number}}


def id_of(response: httpx.Response) -> str:
    assert response.is_success, response.text
    content = response.json()
    return str(content["request_id"] if "request_id" in content else content["task"]["id"])


def client_of(server: Server) -> httpx.AsyncClient:
    """A client with a connection for each request, so that each reaches any of the processes."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=server.url, timeout=20, limits=limits, trust_env=False)


async def send(client: httpx.AsyncClient, key: str, call: dict[str, Any], **headers: str) -> httpx.Response:
    return await client.post(**call, headers={"idempotency-key": key, **headers})


async def send_at_once(client: httpx.AsyncClient, key: str, call: dict[str, Any], **headers: str) -> list[httpx.Response]:
    responses: list[httpx.Response] = []

    async def one() -> None:
        responses.append(await send(client, key, call, **headers))

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(one)
    return responses


@pytest.mark.parametrize("form", ["submission", "task"])
async def test_of_twenty_at_once_to_two_processes_one_is_run(form: str, tmp_path: Path) -> None:
    async with serving(uvicorn("--workers", "2"), tmp_path, 2, **KEYS) as server, client_of(server) as client:
        ids: dict[str, str] = {}
        for number in range(10):
            key, who = f"key-{number % 5}", (ALICE, BOB)[number // 5]
            responses = await send_at_once(client, key, call(form, number), **who)
            (request_id,) = {id_of(response) for response in responses}
            ids[f"{key} {who}"] = request_id
            assert sum("idempotency-replayed" not in response.headers for response in responses) == 1
        assert len(set(ids.values())) == 10
        await eventually(lambda: len(server.lines("runs")) >= 10)
        await server.stop()
        await server.start(2)
        for number in range(10):
            key, who = f"key-{number % 5}", (ALICE, BOB)[number // 5]
            again = await send(client, key, call(form, number), **who)
            assert (id_of(again), again.headers["idempotency-replayed"]) == (ids[f"{key} {who}"], "true")
        assert Counter(server.lines("runs")) == Counter(map(str, range(10)))
        assert server.complaints() == []
    assert stored_jobs(server.database) == 10


@pytest.mark.parametrize("form", ["submission", "task"])
async def test_a_process_killed_between_commit_and_response(form: str, tmp_path: Path) -> None:
    """The client receives no response, sends the same request again, and there is one job."""

    def command(port: int) -> list[str]:
        return ["tests.acceptance.killed_service", str(port)]

    async with serving(command, tmp_path, max_attempts=10, max_queued=1000) as server, client_of(server) as client:
        ids: set[str] = set()
        for number in range(KILLS):
            key = f"key-{number}"
            with pytest.raises(httpx.TransportError):
                await send(client, key, call(form, number), **{"x-kill": "1"})
            assert stored_jobs(server.database) == number + 1
            again = await send(client, key, call(form, number))
            assert again.headers["idempotency-replayed"] == "true"
            ids.add(id_of(again))
        await eventually(lambda: set(server.lines("runs")) == set(map(str, range(KILLS))), 120)
    assert len(ids) == stored_jobs(server.database) == KILLS
