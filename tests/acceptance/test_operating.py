"""The command beside a running service, and after it was killed: what an operator does takes effect in every process."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.queue_client import eventually

from .servers import ROOT, Server, serving, uvicorn

pytestmark = pytest.mark.slow


async def operate(server: Server, *arguments: str, status: int = 0) -> str:
    """What the command prints, run as an operator runs it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("QUEUE_")}
    environ |= {"QUEUE_DATABASE": str(server.database), "PYTHONPATH": str(ROOT / "src"), **server.settings}
    command = [sys.executable, "-m", "queue_middleware", *arguments]
    done = await anyio.run_process(command, check=False, env=environ, cwd=server.directory)
    assert done.returncode == status, done.stderr.decode()
    return done.stdout.decode()


async def operate_json(server: Server, *arguments: str) -> Any:
    return json.loads(await operate(server, *arguments, "--json"))


async def test_an_operator_finds_retries_and_stops_requests_while_the_service_runs(tmp_path: Path) -> None:
    async with (
        serving(uvicorn("--workers", "2"), tmp_path, workers=2, concurrency=2, keep_requests="failed") as server,
        server.queue() as queue,
    ):
        failed = await queue.submit("POST", "/square", json={})
        assert (await queue.response(failed)).status_code == 500
        assert (await operate(server, "requests", "list", "--state", "failed", "--ids")).split() == [failed]
        (copy,) = (await operate_json(server, "requests", "replay", "--state", "failed", "--yes"))["copies"].values()
        assert (await queue.response(copy)).status_code == 500

        busy = await queue.submit("POST", "/busy")

        async def is_delayed() -> bool:
            return (await operate(server, "requests", "show", busy)).splitlines()[1].split() == ["state", "delayed"]

        await eventually(is_delayed)
        await operate(server, "requests", "run-now", busy)
        assert (await queue.response(busy)).text == "attempt 2"

        running = await queue.submit("POST", "/gated")
        await eventually(lambda: running in server.lines("entered"))
        await operate(server, "requests", "cancel", running)
        await eventually(lambda: running in server.lines("tidied"))

        processes = await operate_json(server, "processes", "list")
        assert sorted(process["pid"] for process in processes) == server.workers()
        assert "running 0 of 4" in await operate(server, "status")

        async def is_counted() -> bool:
            recent = (await operate_json(server, "status"))["throughput"]["recent"]
            return (recent["submitted"], recent["ended"], recent["failed"], recent["cancelled"]) == (4, 4, 2, 1)

        await eventually(is_counted)  # processes store what they have counted within two seconds


async def test_a_pause_from_the_command_holds_in_every_process(tmp_path: Path) -> None:
    async with serving(uvicorn("--workers", "2"), tmp_path, workers=2) as server, server.queue() as queue:
        await operate(server, "pause", "--reason", "a new model is loaded")
        ids = [await queue.submit("POST", "/square", json={"n": n}) for n in range(10)]
        assert "a new model is loaded" in await operate(server, "status")
        assert server.lines("runs") == []
        await operate(server, "resume")
        for request_id in ids:
            assert (await queue.response(request_id)).status_code == 200


async def test_a_queue_is_read_and_operated_after_its_service_was_killed(tmp_path: Path) -> None:
    async with serving(uvicorn("--workers", "2"), tmp_path, workers=2, concurrency=1) as server, server.queue() as queue:
        running = [await queue.submit("POST", "/gated") for _ in range(2)]
        await eventually(lambda: set(server.lines("entered")) == set(running))
        queued = await queue.submit("POST", "/square", json={"n": 7})
        server.signal_all(signal.SIGKILL)
        await server.ended()
        before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if not path.name.endswith("-shm")}
        assert "no process runs it" in await operate(server, "status")
        listed = (await operate_json(server, "requests", "list"))["requests"]
        assert {row["id"]: row["state"] for row in listed} == {queued: "queued", **dict.fromkeys(running, "running")}
        after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if not path.name.endswith("-shm")}
        assert after == before

        await operate(server, "requests", "cancel", queued)
        (tmp_path / "gate").touch()
        await server.start(workers=2)
        assert (await operate_json(server, "requests", "show", queued))["request"]["state"] == "cancelled"
        for request_id in running:
            assert (await queue.response(request_id)).text == "through"
        assert server.lines("runs") == []
