"""Polled tasks on a real server that is restarted and killed in between: polling continues, and the webhook arrives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from queue_middleware.tasks.polling.config import render_poll_config
from queue_middleware.tasks.polling.providers import PROVIDERS
from tests.support.providers import KEY, Replicate, providing
from tests.support.queue_client import eventually
from tests.support.webhook_receiver import receiving

from .servers import Server, serving, uvicorn

pytestmark = pytest.mark.slow

CONFIG = {**render_poll_config(PROVIDERS["replicate"].poll), "interval": 0.2}


async def create(server: Server, target: str, receiver: str, **task: Any) -> str:
    async with server.client() as client:
        given = {"targetUrl": target, "headers": {"Authorization": f"Bearer {KEY}"}, "onCompleteUrl": f"{receiver}/done"}
        response = await client.post("/fal/queue/v1/tasks", json={**given, **task})
    assert response.status_code == 201, response.text
    return response.json()["task"]["id"]


@pytest.mark.parametrize("sign", ["SIGTERM", "SIGKILL"])
async def test_polling_continues_after_a_restart(sign: str, tmp_path: Path) -> None:
    async with (
        providing(Replicate(ends="processing")) as provider,
        receiving() as receiver,
        serving(uvicorn(), tmp_path, task_targets="127.0.0.1") as server,
    ):
        target = f"{provider.url}/v1/models/a/b/predictions"
        task_id = await create(server, target, receiver.url, body='{"input": {}}', pollConfig=CONFIG)
        await eventually(lambda: len(provider.polls) >= 3)
        await (server.stop() if sign == "SIGTERM" else server.kill_all())
        provider.ends = ""
        call = len(provider.polls)
        await server.start()
        (webhook,) = await eventually(lambda: receiver.webhooks_for(task_id), 90)
        complaints = server.complaints()
    assert len(provider.jobs) == 1  # it was started once
    assert len(provider.polls) > call
    assert webhook.content["event"] == "task.completed"
    assert webhook.content["task"]["result"]["body"].startswith('["https://replicate.delivery/')
    assert not complaints
