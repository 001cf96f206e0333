"""Load on a server that is being disturbed. Afterwards every acknowledged request must be completed and its webhook sent."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import anyio
import httpx

from queue_middleware.verify import WebhookVerifier
from tests.support.queue_client import eventually
from tests.support.webhook_receiver import Receiver

from .servers import Server

PATIENCE = 60.0
"""Seconds after the last disturbance until everything is completed and all webhooks have arrived."""


@dataclass
class Load:
    """Submits continuously and keeps what was acknowledged: request id → question."""

    server: Server
    receiver: Receiver
    acknowledged: dict[str, int] = field(default_factory=dict)
    questions: count[int] = field(default_factory=count)

    async def run(self, submitters: int = 4) -> None:
        async with self.server.client() as client, anyio.create_task_group() as tasks:
            for _ in range(submitters):
                tasks.start_soon(self._submit, client)

    async def _submit(self, client: httpx.AsyncClient) -> None:
        """Stays at most some dozens ahead of the service: the disturbances should affect running work, not a long queue."""
        for number in self.questions:
            await eventually(lambda: len(self.acknowledged) - len(self.receiver.arrived) < 60, PATIENCE)
            with suppress(httpx.TransportError):
                response = await client.post(
                    f"/fal/queue/submit/square?fal_webhook={self.receiver.url}/hook",
                    json={"n": number, "seconds": number % 5 * 0.03},
                )
                if response.status_code == 200:
                    self.acknowledged[response.json()["request_id"]] = number
                else:
                    # Not yet started, or already closing. Any other error would be a wrong response to a valid request.
                    assert response.status_code == 503, response.text
            await anyio.sleep(0.01)

    async def goes_on(self, more: int = 20) -> None:
        """Wait until this many further submissions were acknowledged."""
        goal = len(self.acknowledged) + more
        await eventually(lambda: len(self.acknowledged) >= goal, PATIENCE)


async def judge(load: Load, *, clocks_differ_by: float = 0) -> None:
    """Wait for the end of everything that was acknowledged, and check all of it. The server's clock may have been wrong."""
    server, receiver = load.server, load.receiver
    async with server.queue() as queue:
        with anyio.fail_after(PATIENCE):
            for request_id, number in load.acknowledged.items():
                response = await queue.response(request_id)
                assert (response.status_code, response.json()) == (200, {"n": number, "square": number * number})
    await eventually(lambda: receiver.arrived.keys() >= load.acknowledged.keys(), PATIENCE)
    # Requests stored without an acknowledgment end as well, and nothing is left.
    await eventually(lambda: not count_rows(server.database, "job WHERE finished_at IS NULL"), PATIENCE)
    await eventually(lambda: not count_rows(server.database, "delivery WHERE state IN ('pending', 'sending')"), PATIENCE)
    assert count_rows(server.database, "delivery WHERE state = 'dead'") == 0

    verifier = WebhookVerifier(f"{server.url}/fal/queue/.well-known/jwks.json", tolerance=300 + clocks_differ_by)
    for request_id, webhooks in list(receiver.arrived.items()):
        for webhook in (webhook for webhook in webhooks if webhook.target == "/hook"):
            assert (await verifier.verify(webhook.headers, webhook.body)).request_id == request_id
            number = webhook.content["payload"]["n"]
            assert load.acknowledged.get(request_id, number) == number
            assert webhook.content["payload"] == {"n": number, "square": number * number}
            assert (webhook.content["request_id"], webhook.content["status"]) == (request_id, "OK")
    assert [line for line in server.complaints() if "malformed" in line] == []


def count_rows(database: Path, rows: str) -> int:
    """Read from the file, without the service."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(f"SELECT count(*) FROM {rows}").fetchone()[0]


def repeated(server: Server) -> bool:
    """The questions that ran more than once."""
    runs = server.lines("runs")
    return len(runs) > len(set(runs))


def repeated_without_death(server: Server, killed: Collection[int]) -> dict[str, list[int]]:
    """The questions that ran again although the process of an earlier run had not been killed, with the pids of their runs."""
    runners: dict[str, list[int]] = defaultdict(list)
    for line in server.lines("runners"):
        question, pid = line.split()
        runners[question].append(int(pid))
    return {question: pids for question, pids in runners.items() if not set(pids[:-1]) <= set(killed)}
