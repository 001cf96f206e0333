"""Whatever is done to the service in the middle of its work: what it has acknowledged is completed, and is told."""

from __future__ import annotations

import random
import signal
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import anyio
import httpx
import pytest

from queue_middleware.verify import WebhookVerifier
from tests.queueing import eventually
from tests.receiver import Receiver, Webhook, receiving

from .servers import Command, Server, gunicorn, has_gunicorn_asgi, serving, uvicorn

pytestmark = pytest.mark.slow

WORKERS = 3
PATIENCE = 60.0
"""Seconds for everything to be completed and told after the last blow."""


@dataclass
class Load:
    """Submits one thing after the other and keeps what was acknowledged: request id → question."""

    server: Server
    receiver: Receiver
    acknowledged: dict[str, int] = field(default_factory=dict)
    questions: count[int] = field(default_factory=count)

    async def run(self, submitters: int = 4) -> None:
        async with self.server.client() as client, anyio.create_task_group() as tasks:
            for _ in range(submitters):
                tasks.start_soon(self._submit, client)

    async def _submit(self, client: httpx.AsyncClient) -> None:
        """At most some dozens ahead of the service: the blows are to meet running work, not an endless queue."""
        for number in self.questions:
            await eventually(lambda: len(self.acknowledged) - len(self.receiver.arrived) < 60, PATIENCE)
            with suppress(httpx.TransportError):
                answer = await client.post(
                    f"/fal/queue/submit/square?fal_webhook={self.receiver.url}/hook",
                    json={"n": number, "seconds": number % 5 * 0.03},
                )
                if answer.status_code == 200:
                    self.acknowledged[answer.json()["request_id"]] = number
                else:
                    # Not yet up, or already closing. Anything else would be an answer to a good request that is not one.
                    assert answer.status_code == 503, answer.text
            await anyio.sleep(0.01)

    async def goes_on(self, more: int = 20) -> None:
        """Wait until so many further submissions were acknowledged."""
        goal = len(self.acknowledged) + more
        await eventually(lambda: len(self.acknowledged) >= goal, PATIENCE)


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
async def test_everything_acknowledged_survives_every_blow(command: Command, rounds: int, tmp_path: Path) -> None:
    chance = random.Random(20)
    refusals = chance.sample(range(400), 40)

    def sometimes_refuse(webhook: Webhook) -> int:
        """Some questions meet a receiver that is down at their first attempt; the retry has to survive the blows too."""
        first = len(receiver.of(webhook.request_id)) == 1
        return 503 if first and webhook.content["payload"]["n"] in refusals else 200

    options = {
        "concurrency": 4,
        "max_attempts": 10,  # a request may be met by several blows; that is not what is counted here
        "shutdown_timeout": "300ms",
        "webhook_schedule": ",".join(["300ms"] * 100),
    }
    async with receiving(sometimes_refuse) as receiver, serving(command, tmp_path, WORKERS, **options) as server:
        load = Load(server, receiver)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load.run)
            for blow in [terminate] * 2 + [kill_one, kill_all] * rounds:
                await load.goes_on()
                await blow(server, chance)
            await load.goes_on()
            tasks.cancel_scope.cancel()
        await judge(load)


async def terminate(server: Server, chance: random.Random) -> None:
    """An ordinary restart, as of a deployment."""
    assert await server.stop() in (0, -signal.SIGTERM)
    await server.start(WORKERS)


async def kill_one(server: Server, chance: random.Random) -> None:
    """One worker dies; the others go on, and the supervisor makes a new one."""
    victim = chance.choice(server.workers())
    server.kill_worker(victim)
    await eventually(lambda: len(server.workers()) == WORKERS and victim not in server.workers(), 30)


async def kill_all(server: Server, chance: random.Random) -> None:
    """The power goes, as far as the processes can tell."""
    await server.kill_all()
    await server.start(WORKERS)


async def judge(load: Load) -> None:
    server, receiver = load.server, load.receiver
    async with server.queue() as queue:
        with anyio.fail_after(PATIENCE):
            for request_id, number in load.acknowledged.items():
                answer = await queue.response(request_id)
                assert (answer.status_code, answer.json()) == (200, {"n": number, "square": number * number})
    await eventually(lambda: receiver.arrived.keys() >= load.acknowledged.keys(), PATIENCE)
    # What was stored without being acknowledged ends as well, and nothing is left lying about.
    await eventually(lambda: not count_rows(server.database, "job WHERE finished_at IS NULL"), PATIENCE)
    await eventually(lambda: not count_rows(server.database, "delivery WHERE state IN ('pending', 'sending')"), PATIENCE)
    assert count_rows(server.database, "delivery WHERE state = 'dead'") == 0

    verifier = WebhookVerifier(f"{server.url}/fal/queue/.well-known/jwks.json")
    for request_id, webhooks in list(receiver.arrived.items()):
        for webhook in webhooks:
            assert (await verifier.verify(webhook.headers, webhook.body)).request_id == request_id
            number = webhook.content["payload"]["n"]
            assert load.acknowledged.get(request_id, number) == number
            assert webhook.content["payload"] == {"n": number, "square": number * number}
            assert (webhook.content["request_id"], webhook.content["status"]) == (request_id, "OK")

    # The blows have met running work, or nothing was shown here.
    assert len(server.lines("runs")) > len(set(server.lines("runs")))
    assert [line for line in server.complaints() if "locked" in line or "malformed" in line] == []


def count_rows(database: Path, rows: str) -> int:
    """Asked behind the service's back."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(f"SELECT count(*) FROM {rows}").fetchone()[0]
