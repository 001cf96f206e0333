"""Without a provider of OpenTelemetry, its API is not imported, whether it is installed or not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import asyncio, sys

if sys.argv[2] == "blocked":
    sys.modules["opentelemetry"] = None

import httpx
from queue_middleware import QueueMiddleware

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": dict(scope["headers"])[b"traceparent"]})

async def main():
    queue = QueueMiddleware(app, database=sys.argv[1], name="app", min_free_disk=0)
    transport = httpx.ASGITransport(queue)
    async with queue.running(), httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
        headers = {"traceparent": "as it came", "Prefer": "wait=20"}
        receipt = (await client.get("/fal/queue/submit/x", headers=headers)).json()
        response = await client.get(f"/fal/queue/requests/{receipt['request_id']}/response")
        print(response.text, sorted(name for name in sys.modules if name.startswith("opentelemetry.")))

asyncio.run(main())
"""


@pytest.mark.parametrize("extra", ["blocked", "installed"])
def test_nothing_of_the_extra_is_imported(extra: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "queue.sqlite3"), extra]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("as it came []\n", "")
