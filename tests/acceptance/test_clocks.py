"""Time that passes while no process runs, and processes that hang: guarantees hold on every clock."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from queue_middleware.verify import WebhookVerifier
from tests.support.queue_client import Queue, eventually
from tests.support.webhook_receiver import receiving

from .servers import Command, gunicorn, has_gunicorn_asgi, serving, uvicorn, uvicorn_worker

pytestmark = pytest.mark.slow

SERVERS = [
    pytest.param(uvicorn("--workers", "2"), id="uvicorn"),
    pytest.param(gunicorn("--worker-class", uvicorn_worker(), "--workers", "2"), id="gunicorn-uvicorn"),
    pytest.param(
        gunicorn("--worker-class", "asgi", "--workers", "2"),
        id="gunicorn-asgi",
        marks=pytest.mark.skipif(not has_gunicorn_asgi(), reason="this gunicorn has no ASGI worker of its own"),
    ),
]
CLOCKS = {
    "job": ("start_by", "due_at"),
    "task": ("awaits_until", "poll_at"),
    "delivery": ("since", "due_at"),
    "receiver": ("next_at",),
}
"""Every stored time that is waited for."""
HOUR = 3600


def two_hours_pass(database: Path) -> None:
    """No process runs, so advancing the clock is the same as moving all stored times back."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, columns in CLOCKS.items():
            for column in columns:
                connection.execute(f"UPDATE {table} SET {column} = {column} - {2 * HOUR * 1000}")


class Tasks:
    """AsyncQueue's routes of a server."""

    def __init__(self, queue: Queue) -> None:
        self._client = queue.client

    async def make(self, **task: Any) -> dict[str, Any]:
        response = await self._client.post("/fal/queue/v1/tasks", json=task)
        assert response.status_code == 201, response.text
        return response.json()

    async def reaches(self, task_id: str, status: str) -> dict[str, Any]:
        async def arrived() -> dict[str, Any] | None:
            found = (await self._client.get(f"/fal/queue/v1/tasks/{task_id}")).json()["task"]
            return found if found["status"] == status else None

        return await eventually(arrived)


async def queued_behind(queue: Queue, target: str, **request: Any) -> str:
    """A queued request, because every slot is taken."""
    request_id = await queue.submit("POST", target, **request)
    assert (await queue.status(request_id))["status"] == "IN_QUEUE"
    return request_id


@pytest.mark.parametrize("sign", ["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("command", SERVERS)
async def test_time_passes_while_no_process_runs(command: Command, sign: str, tmp_path: Path) -> None:
    refusing = True
    options = {"concurrency": 1, "shutdown_timeout": "200ms", "webhook_schedule": "1h,1h"}
    async with (
        receiving(lambda webhook: 500 if refusing else 200) as receiver,
        serving(command, tmp_path, 2, **options) as server,
    ):
        async with server.queue() as queue:
            tasks = Tasks(queue)
            done = await queue.submit("POST", f"/square?fal_webhook={receiver.url}/done", json={"n": 3})
            busy = await queue.submit("POST", "/busy")
            forgotten = await queue.submit("POST", f"/handed-over?fal_callback_timeout={HOUR}&fal_webhook={receiver.url}/f")
            awaited = await queue.submit("POST", f"/handed-over?fal_callback_timeout={9 * HOUR}&fal_webhook={receiver.url}/a")
            signalled = await tasks.make(targetUrl="/square", body='{"n": 4}', waitForSignal=True, maxWaitTime=9 * HOUR)
            unheard = await tasks.make(targetUrl="/square", body='{"n": 5}', waitForSignal=True, maxWaitTime=HOUR)
            later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
            delayed = await tasks.make(targetUrl="/square", body='{"n": 6}', delayUntil=later)
            await queue.reaches(done, "COMPLETED")
            await eventually(lambda: len(server.lines("handed_over")) == 2 and server.lines("busy") == ["1"])
            await eventually(lambda: receiver.webhooks_for(done))
            for made in (signalled, unheard):
                await tasks.reaches(made["task"]["id"], "waiting")
            assert delayed["task"]["status"] == "delayed"
            gated = [await queue.submit("POST", "/gated") for _ in range(2)]
            await eventually(lambda: len(server.lines("entered")) == 2)
            late = await queued_behind(
                queue,
                f"/square?fal_webhook={receiver.url}/late",
                json={"n": 7},
                headers={"x-fal-request-start-timeout": str(HOUR), "x-fal-request-timeout": str(9 * HOUR)},
            )
            patient = await queued_behind(queue, "/square", json={"n": 8}, headers={"x-fal-request-timeout": str(9 * HOUR)})
        await (server.stop() if sign == "SIGTERM" else server.kill_all())
        refusing = False
        two_hours_pass(server.database)
        await server.start(2)
        async with server.queue() as queue:
            tasks = Tasks(queue)
            # None of this has to wait for a slot: all of them are taken again.
            refused = await queue.response(late)
            assert (refused.status_code, refused.json()["error_type"]) == (504, "request_timeout")
            assert refused.headers["x-fal-request-timeout-type"] == "user"
            given_up = await queue.response(forgotten)
            assert (given_up.status_code, given_up.json()["error_type"]) == (504, "request_timeout")
            assert "x-fal-request-timeout-type" not in given_up.headers
            await tasks.reaches(unheard["task"]["id"], "timeout")
            assert (await queue.status(awaited))["status"] == "IN_PROGRESS"
            urls = dict(line.split() for line in server.lines("handed_over"))
            assert (await queue.client.post(urls[awaited], json={"picture": "done"})).json() == {"ok": True}
            assert (await queue.client.post(urls[forgotten], json={})).status_code == 409
            assert (await queue.response(awaited)).json() == {"picture": "done"}
            token = signalled["signalToken"]
            assert (await queue.client.post(f"/fal/queue/v1/signals/{token}", json={"status": "completed"})).status_code == 200
            await tasks.reaches(signalled["task"]["id"], "completed")
            (tmp_path / "gate").touch()
            assert (await queue.response(busy)).text == "attempt 2"
            assert (await queue.response(patient)).json() == {"n": 8, "square": 64}
            await tasks.reaches(delayed["task"]["id"], "completed")
            for request_id in gated:
                assert (await queue.response(request_id)).text == "through"
            verifier = WebhookVerifier(f"{server.url}/fal/queue/.well-known/jwks.json")
            first, second = await eventually(lambda: len(receiver.webhooks_for(done)) == 2 and receiver.webhooks_for(done))
            for webhook in (first, second):
                assert (await verifier.verify(webhook.headers, webhook.body)).request_id == done
            assert first.body == second.body
            assert first.headers["webhook-id"] == second.headers["webhook-id"]
            # Signed anew; within the same second of this machine's clock the signature is the same.
            stamps, signatures = (
                [webhook.headers[f"x-fal-webhook-{name}"] for webhook in (first, second)] for name in ("timestamp", "signature")
            )
            assert (stamps[0] == stamps[1]) is (signatures[0] == signatures[1])
            for request_id, error in ((late, "504"), (forgotten, "504"), (awaited, None)):
                (webhook,) = await eventually(lambda request_id=request_id: receiver.webhooks_for(request_id))
                assert (webhook.content["status"], webhook.content["error"]) == (
                    ("OK", None) if error is None else ("ERROR", f"Invalid status code: {error}")
                )
        charged = "1" if sign == "SIGTERM" else "2"
        assert sorted(server.lines("attempts")) == sorted(["1", "1", charged, charged])
        assert sorted(server.lines("runs")) == ["3", "4", "5", "6", "8"]
        assert server.complaints() == []


async def test_a_process_that_hangs_loses_its_requests_and_cannot_finish_them(tmp_path: Path) -> None:
    async with (
        receiving() as receiver,
        serving(uvicorn(), tmp_path, lease="1s") as hanging,
        serving(uvicorn(), tmp_path, lease="1s", concurrency=2) as well,
    ):
        async with hanging.queue() as queue:
            request_id = await queue.submit("POST", f"/gated?fal_webhook={receiver.url}/hook")
            await eventually(lambda: hanging.lines("entered") == [request_id])
        assert hanging.process is not None
        hanging.process.send_signal(signal.SIGSTOP)
        try:
            await eventually(lambda: hanging.lines("entered") == [request_id] * 2)
            (tmp_path / "gate").touch()
            async with well.queue() as queue:
                assert (await queue.response(request_id)).text == "through"
                await eventually(lambda: receiver.webhooks_for(request_id))
        finally:
            hanging.process.send_signal(signal.SIGCONT)
        await eventually(lambda: "lost" in hanging.output)
        async with hanging.queue() as queue:
            assert (await queue.response(request_id)).text == "through"
        assert hanging.lines("attempts") == ["1", "2"]
        assert len(receiver.webhooks_for(request_id)) == 1


async def test_a_process_that_was_suspended_for_long_continues_its_own_work(tmp_path: Path) -> None:
    """No other process could take the work, and the process does not rescue its own claims."""
    async with serving(uvicorn(), tmp_path, lease="1s", on_crash="fail") as stopped:
        async with stopped.queue() as queue:
            request_id = await queue.submit("POST", "/gated")
            await eventually(lambda: stopped.lines("entered") == [request_id])
            assert stopped.process is not None
            for _ in range(2):
                stopped.process.send_signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(3)
                finally:
                    stopped.process.send_signal(signal.SIGCONT)
                await asyncio.sleep(1.5)
            (tmp_path / "gate").touch()
            assert (await queue.response(request_id)).text == "through"
        assert stopped.lines("entered") == [request_id]
        assert "lost" not in stopped.output


async def test_two_processes_suspended_together_take_nothing_from_each_other(tmp_path: Path) -> None:
    """As when a laptop is closed."""
    async with (
        serving(uvicorn(), tmp_path, lease="1s", on_crash="fail") as one,
        serving(uvicorn(), tmp_path, lease="1s", on_crash="fail") as other,
    ):
        async with one.queue() as queue:
            request_id = await queue.submit("POST", "/gated")
            await eventually(lambda: one.lines("entered") == [request_id])
            await asyncio.sleep(2)  # until leases can be judged in both
            assert one.process is not None
            assert other.process is not None
            processes = (one.process, other.process)
            for process in processes:
                process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(4)
            finally:
                for process in reversed(processes):
                    process.send_signal(signal.SIGCONT)
            await asyncio.sleep(2)
            (tmp_path / "gate").touch()
            assert (await queue.response(request_id)).text == "through"
        assert one.lines("entered") == [request_id]
        assert "lost" not in one.output + other.output


async def test_a_handler_that_blocks_its_event_loop_keeps_its_lease(tmp_path: Path) -> None:
    async with (
        serving(uvicorn(), tmp_path, lease="1s") as blocked,
        serving(uvicorn(), tmp_path, lease="1s") as other,
    ):
        async with blocked.queue() as queue:
            request_id = await queue.submit("POST", "/blocking", json={"seconds": 4})
        async with other.queue() as queue:
            assert (await queue.response(request_id)).text == "blocked"
        assert other.lines("blocking") == [request_id]


@pytest.mark.parametrize("command", SERVERS)
async def test_any_worker_accepts_a_callback_and_notifies_waiters_in_another(command: Command, tmp_path: Path) -> None:
    async with serving(command, tmp_path, 2) as server:
        for number in range(8):
            # Each call over a separate connection, so that both workers receive some.
            async with server.queue() as queue:
                made = await Tasks(queue).make(
                    targetUrl="/square?hook={callback_url}", body=f'{{"n": {number}}}', maxWaitTime=60
                )
                await Tasks(queue).reaches(made["task"]["id"], "waiting")
            async with server.client() as listener, server.client() as caller:
                reading = listener.build_request("GET", f"/fal/queue/v1/tasks/{made['task']['id']}?wait=25")
                async with listener.stream("GET", f"/fal/queue/requests/{made['task']['id']}/status/stream") as stream:
                    events = stream.aiter_lines()
                    assert '"IN_PROGRESS"' in await anext(events)
                    assert (await caller.post(made["callbackUrl"], json={"number": number})).json() == {"ok": True}
                    received = [line async for line in events]
                response: httpx.Response = await listener.send(reading)
            assert '"COMPLETED"' in "".join(received)
            assert response.json()["task"]["result"]["body"] == f'{{"number":{number}}}'
        assert server.complaints() == []
