"""The two example commands with other hosts, on a real server that is restarted and killed in between."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.providers import Fal, Replicate, providing
from tests.support.providers.loopback import KEY, Call, Provider, Reply
from tests.support.queue_client import eventually
from tests.support.webhook_receiver import receiving

from .servers import Command, Server, gunicorn, hypercorn, serving, uvicorn, uvicorn_worker

pytestmark = pytest.mark.slow

FAL = r"""
curl -X POST https://api.asyncqueue.io/v1/tasks \
  -H "X-API-Key: async_your_key" \
  -H "Content-Type: application/json" \
  -d '{
    "targetUrl": "https://queue.fal.run/fal-ai/flux/dev?fal_webhook={asyncqueue_callback_url}",
    "method": "POST",
    "headers": {
      "Authorization": "Key fal_your_key"
    },
    "body": "{\"prompt\": \"A sunset over mountains\"}",
    "waitForSignal": true,
    "maxWaitTime": 600,
    "onCompleteUrl": "https://your-app.com/api/image-ready"
  }'
"""
REPLICATE = r"""
curl -X POST https://api.asyncqueue.io/v1/tasks \
  -H "X-API-Key: async_your_key" \
  -H "Content-Type: application/json" \
  -d '{
    "targetUrl": "https://api.replicate.com/v1/models/stability-ai/stable-diffusion-3/predictions",
    "method": "POST",
    "headers": {
      "Authorization": "Bearer r8_your_token"
    },
    "body": "{\"input\": {\"prompt\": \"An astronaut\"}, \"webhook\": \"{asyncqueue_callback_url}\", ~
      \"webhook_events_filter\": [\"completed\"]}",
    "waitForSignal": true,
    "maxWaitTime": 600,
    "onCompleteUrl": "https://your-app.com/api/prediction-ready"
  }'
"""
REPLICATE = re.sub(r"~\n +", "", REPLICATE)  # one line in the original
OPTIONS = {"task_targets": "127.0.0.1", "api_keys": "async_your_key", "webhook_schedule": ",".join(["200ms"] * 50)}


async def curl(command: str, **hosts: str) -> dict[str, Any]:
    """Send what the command would send, with other hosts and the provider's key."""
    for host, url in hosts.items():
        command = command.replace(f"https://{host.replace('_', '.')}", url)
    for name in ("fal_your_key", "r8_your_token"):
        command = command.replace(name, KEY)
    words = shlex.split(command)
    assert words[:3] == ["curl", "-X", "POST"]
    headers = dict(words[place + 1].split(": ", 1) for place, word in enumerate(words) if word == "-H")
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.post(words[3], headers=headers, content=words[words.index("-d") + 1])
    assert response.status_code == 201, response.text
    return response.json()


async def task(server: Server, task_id: str) -> dict[str, Any]:
    async with server.client() as client:
        response = await client.get(f"/fal/queue/v1/tasks/{task_id}", headers={"x-api-key": "async_your_key"})
    assert response.status_code == 200, response.text
    return response.json()["task"]


async def reaches(server: Server, task_id: str, status: str) -> dict[str, Any]:
    async def arrived() -> dict[str, Any] | None:
        found = await task(server, task_id)
        return found if found["status"] == status else None

    return await eventually(arrived)


async def restart(server: Server) -> None:
    assert await server.stop() in (0, -15)
    await server.start()


@pytest.mark.parametrize(("command", "kind"), [(FAL, Fal), (REPLICATE, Replicate)], ids=["fal", "replicate"])
async def test_the_complete_flow_with_a_restart_in_the_middle(command: str, kind: type[Provider], tmp_path: Path) -> None:
    async with (
        providing(kind()) as provider,
        receiving() as receiver,
        serving(uvicorn(), tmp_path, **OPTIONS) as server,
    ):
        created = await curl(
            command,
            api_asyncqueue_io=f"{server.url}/fal/queue",
            queue_fal_run=provider.url,
            api_replicate_com=provider.url,
            **{"your-app_com": receiver.url},
        )
        task_id, callback_id = created["task"]["id"], created["task"]["callbackId"]
        assert created["callbackUrl"] == f"{server.url}/fal/queue/v1/callbacks/{callback_id}"
        assert len(bytes.fromhex(callback_id)) == 32
        await reaches(server, task_id, "waiting")
        await restart(server)
        assert (await task(server, task_id))["status"] == "waiting"
        (job,) = provider.jobs.values()
        assert job.webhook == created["callbackUrl"]
        response = await provider.call_back(job)
        assert (response.status_code, response.json()) == (200, {"ok": True})
        (webhook,) = await eventually(lambda: receiver.webhooks_for(task_id))
        done = await task(server, task_id)
        assert len(provider.calls) == 1
        await server.stop()
        printed = server.output
        stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert webhook.target in ("/api/image-ready", "/api/prediction-ready")
    assert (webhook.content["event"], webhook.content["task"]["status"]) == ("task.completed", "completed")
    assert webhook.content["task"]["result"] == done["result"]
    payload = json.loads(done["result"]["body"])
    assert payload["status"] in ("OK", "succeeded")
    assert not server.complaints()
    assert callback_id not in printed  # the output includes the server's access log
    assert "/v1/callbacks/" in printed
    assert callback_id.encode() not in stored


class HeldFal(Fal):
    """Calls back before it responds, as a fast provider may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()

    async def begin(self, call: Call) -> Reply:
        reply = await super().begin(call)
        await self.may_answer.wait()
        return reply


async def test_killed_between_callback_and_completion(tmp_path: Path) -> None:
    async with (
        providing(HeldFal()) as provider,
        receiving() as receiver,
        serving(uvicorn(), tmp_path, **OPTIONS) as server,
    ):
        created = await curl(
            FAL,
            api_asyncqueue_io=f"{server.url}/fal/queue",
            queue_fal_run=provider.url,
            **{"your-app_com": receiver.url},
        )
        task_id = created["task"]["id"]
        await eventually(lambda: provider.jobs)
        (job,) = provider.jobs.values()
        assert (await provider.call_back(job)).status_code == 200
        assert (await task(server, task_id))["status"] == "processing"
        await server.kill_all()
        provider.may_answer.set()
        await server.start()
        done = await reaches(server, task_id, "completed")
        (webhook,) = await eventually(lambda: receiver.webhooks_for(task_id))
        assert (await provider.call_back(job)).status_code == 200
        assert len(provider.calls) == 1
    assert json.loads(done["result"]["body"])["request_id"] == job.id
    assert webhook.content["event"] == "task.completed"


async def test_killed_after_the_callback_was_acknowledged(tmp_path: Path) -> None:
    """The process is killed at the moment when the provider receives its response: what was acknowledged is kept."""
    async with (
        providing(Fal()) as provider,
        receiving() as receiver,
        serving(uvicorn(), tmp_path, **OPTIONS) as server,
    ):
        for number in range(3):
            created = await curl(
                FAL,
                api_asyncqueue_io=f"{server.url}/fal/queue",
                queue_fal_run=provider.url,
                **{"your-app_com": receiver.url},
            )
            task_id = created["task"]["id"]
            await reaches(server, task_id, "waiting")
            job = list(provider.jobs.values())[number]
            assert (await provider.call_back(job)).status_code == 200
            await server.kill_all()
            await server.start()
            assert (await task(server, task_id))["status"] == "completed"
            webhook, *_ = await eventually(lambda task_id=task_id: receiver.webhooks_for(task_id))
            assert json.loads(webhook.content["task"]["result"]["body"])["request_id"] == job.id


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(uvicorn(), id="uvicorn"),
        pytest.param(uvicorn("--http", "h11"), id="uvicorn-h11"),
        pytest.param(hypercorn("--access-logfile", "-"), id="hypercorn"),
        pytest.param(gunicorn("--worker-class", uvicorn_worker(), "--access-logfile", "-"), id="gunicorn-uvicorn"),
    ],
)
async def test_access_logs_contain_no_secret(command: Command, tmp_path: Path) -> None:
    """Without gunicorn's own ASGI worker, whose access log is off by default: it logs the path that it has parsed itself."""
    callback_id, token = "ab" * 32, "cd" * 32
    async with serving(command, tmp_path) as server:
        async with server.client() as client:
            for path in (f"callbacks/{callback_id}", f"signals/{token}"):
                assert (await client.post(f"/fal/queue/v1/{path}", json={})).status_code == 404
        await server.stop()
    assert callback_id not in server.output
    assert token not in server.output
    assert "/v1/callbacks/" in server.output
