"""`fastapi run` and `fastapi dev` serve an application with its queue, in each way that the documentation names."""

from __future__ import annotations

from pathlib import Path

import pytest

from .servers import Command, serving

pytest.importorskip("fastapi_cli", reason="the command of FastAPI is not installed: pip install fastapi-cli")

pytestmark = pytest.mark.slow

SERVICE = """
from fastapi import FastAPI

from queue_middleware import QueueMiddleware
from tests.acceptance.service import lifespan

app = FastAPI(lifespan=lifespan)
{queue}

@app.get("/health")
async def health() -> None: ...


@app.post("/double")
async def double(number: int) -> int:
    return number * 2
"""

ATTACHED = SERVICE.format(queue="queue = QueueMiddleware.attach(app)")
WRAPPED = SERVICE.format(queue="") + "\n\napp = QueueMiddleware(app)\n"


def fastapi(command: str, *options: str) -> Command:
    return lambda port: ["fastapi", command, *options, "--host", "127.0.0.1", "--port", str(port)]


@pytest.mark.parametrize(
    ("service", "command"),
    [
        pytest.param(ATTACHED, fastapi("run", "main.py"), id="run-attached"),
        pytest.param(ATTACHED, fastapi("dev", "main.py", "--no-reload"), id="dev-attached"),
        pytest.param(WRAPPED, fastapi("run", "--entrypoint", "main:app"), id="run-wrapped"),
        pytest.param(WRAPPED, fastapi("dev", "--entrypoint", "main:app", "--no-reload"), id="dev-wrapped"),
    ],
)
async def test_the_command_serves_the_queue(service: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(service)
    async with serving(command, tmp_path) as server, server.queue() as queue:
        assert (await queue.run("POST", "/double?number=4")).json() == 8
        await server.stop()
        assert server.lines("closed")
