"""Whatever is done to the service while it works: what it has acknowledged is completed, and its webhook arrives."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import anyio
import pytest

from tests.support.queue_client import eventually
from tests.support.webhook_receiver import Webhook, receiving

from .load import Load, judge, repeated
from .servers import Command, Server, gunicorn, has_gunicorn_asgi, serving, uvicorn

pytestmark = pytest.mark.slow

WORKERS = 3


@pytest.mark.parametrize(
    ("command", "rounds"),
    [
        pytest.param(uvicorn("--workers", str(WORKERS)), 10, id="uvicorn"),
        pytest.param(
            gunicorn("--worker-class", "asgi", "--workers", str(WORKERS), "--preload"),
            3,
            id="gunicorn-asgi",
            marks=pytest.mark.skipif(not has_gunicorn_asgi(), reason="this gunicorn has no ASGI worker of its own"),
        ),
    ],
)
async def test_everything_acknowledged_survives_every_disturbance(command: Command, rounds: int, tmp_path: Path) -> None:
    chance = random.Random(20)
    refusals = chance.sample(range(400), 40)

    def sometimes_refuse(webhook: Webhook) -> int:
        """For some questions the receiver fails at the first attempt; the retry has to survive the disturbances too."""
        first = len(receiver.webhooks_for(webhook.request_id)) == 1
        return 503 if first and webhook.content["payload"]["n"] in refusals else 200

    options = {
        "concurrency": 4,
        "max_attempts": 10,  # a request may be affected by several disturbances; this is not counted here
        "shutdown_timeout": "300ms",
        "webhook_schedule": ",".join(["300ms"] * 100),
    }
    async with receiving(sometimes_refuse) as receiver, serving(command, tmp_path, WORKERS, **options) as server:
        load = Load(server, receiver)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load.run)
            for disturb in [terminate] * 2 + [kill_one, kill_all] * rounds:
                await load.goes_on()
                await disturb(server, chance)
            await load.goes_on()
            tasks.cancel_scope.cancel()
        await judge(load)
        assert [line for line in server.complaints() if "locked" in line] == []
        assert repeated(server), "no running request was affected, so the test shows nothing"


async def terminate(server: Server, chance: random.Random) -> None:
    """An ordinary restart, as for a deployment."""
    assert await server.stop() in (0, -signal.SIGTERM)
    await server.start(WORKERS)


async def kill_one(server: Server, chance: random.Random) -> None:
    """One worker is killed; the others continue, and the supervisor starts a new one."""
    victim = chance.choice(server.workers())
    server.kill_worker(victim)
    await eventually(lambda: len(server.workers()) == WORKERS and victim not in server.workers(), 30)


async def kill_all(server: Server, chance: random.Random) -> None:
    """A power failure, as far as the processes can tell."""
    await server.kill_all()
    await server.start(WORKERS)
