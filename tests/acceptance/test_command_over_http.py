"""The commands that speak HTTP, as processes, with a real server: submit, listen, trigger, verify."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from tests.support.queue_client import eventually

from .servers import ROOT, Server, serving, uvicorn

pytestmark = pytest.mark.slow

DEADLINE = 60.0


class Command:
    """A running command. `out` and `err` are read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        """The next line of standard output."""
        assert self.process.stdout is not None
        with anyio.fail_after(DEADLINE):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def error_line(self, containing: str) -> str:
        """The next line of standard error with this text."""
        assert self.process.stderr is not None
        with anyio.fail_after(DEADLINE):
            while line := (await self.process.stderr.readline()).decode():
                if containing in line:
                    return line
        raise AssertionError(f"the command ended without {containing!r}")

    async def end(self) -> tuple[int, str, str]:
        """Exit status, and the rest of both outputs."""
        with anyio.fail_after(DEADLINE):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def command(folder: Path, *arguments: str) -> AsyncIterator[Command]:
    """Start `queue-middleware` with these arguments. It never survives the block."""
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("QUEUE_")},
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src"))),
        "XDG_CONFIG_HOME": str(folder / "config"),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "queue_middleware", *arguments),
        cwd=folder,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    async with command(folder, *arguments) as running:
        return await running.end()


@asynccontextmanager
async def listening(folder: Path, server: Server, *arguments: str) -> AsyncIterator[tuple[Command, str]]:
    """`listen`, and its URL."""
    async with command(folder, "listen", "--port", "0", *url_of(server), *arguments) as listener:
        found = re.search(r"http://127\.0\.0\.1:\d+/", await listener.error_line("listening on"))
        assert found is not None
        yield listener, found[0]


def url_of(server: Server) -> Sequence[str]:
    return ("--url", f"{server.url}/fal/queue")


async def test_a_request_is_followed_and_its_webhook_arrives_at_the_second_attempt(tmp_path):
    async with (
        serving(uvicorn(), tmp_path, webhook_schedule="100ms,100ms") as server,
        listening(tmp_path, server, "--answer", "500,200", "--json") as (listener, receiver),
    ):
        arguments = ["submit", "/square", "-d", '{"n": 3}', "--webhook", f"{receiver}done", "--follow", *url_of(server)]
        status, out, err = await run(tmp_path, *arguments)
        assert (status, json.loads(out)) == (0, {"n": 3, "square": 9}), err
        assert ": 200, " in err.splitlines()[-1]
        arrivals = [json.loads(await listener.line()) for _ in range(2)]
        listener.process.send_signal(signal.SIGTERM)
        status, _, err = await listener.end()
    assert [(arrival["status"], arrival["attempt"], arrival["valid"]) for arrival in arrivals] == [
        (500, 1, True),
        (200, 2, True),
    ]
    assert json.loads(arrivals[0]["body"])["payload"] == {"n": 3, "square": 9}
    assert (status, err.splitlines()[-1]) == (0, "2 delivery attempts for 1 request, 0 not valid")


async def test_a_sample_is_shown_and_forwarded_to_a_receiver(tmp_path):
    async with (
        serving(uvicorn(), tmp_path) as server,
        listening(tmp_path, server) as (last, receiver),
        listening(tmp_path, server, "--forward-to", receiver) as (first, url),
    ):
        status, out, err = await run(tmp_path, "trigger", "progress", "--to", url)
        assert (status, "200: accepted" in out) == (0, True), err
        for listener in (first, last):
            assert re.search(
                r"progress 40 % sample .* valid \(ed25519, test key [\w-]{43}\), signed \d s ago", await listener.line()
            )
        status, out, _ = await run(tmp_path, "trigger", "completed", "--no-sign", "--to", url)
        assert (status, "401: not accepted" in out) == (4, True)
        first.process.send_signal(signal.SIGINT)
        assert (await first.end())[0] == 0


async def test_ctrl_c_detaches_and_the_request_can_be_attached_again(tmp_path):
    async with serving(uvicorn(), tmp_path) as server:
        async with command(tmp_path, "submit", "/gated", "--follow", *url_of(server)) as submitting:
            line = await submitting.error_line("running")
            submitting.process.send_signal(signal.SIGINT)
            status, out, err = await submitting.end()
        request_id = line.split()[0]
        assert (status, out) == (130, "")
        assert f"submit --attach {request_id} --follow" in err
        (tmp_path / "gate").touch()
        status, out, err = await run(tmp_path, "submit", "--attach", request_id, *url_of(server))
        assert (status, out) == (0, "through"), err


async def test_a_restart_of_the_service_does_not_end_the_command(tmp_path):
    async with (
        serving(uvicorn(), tmp_path, shutdown_timeout="200ms") as server,
        command(tmp_path, "submit", "/gated", "--follow", *url_of(server)) as submitting,
    ):
        await submitting.error_line("running")
        await eventually(lambda: _true_if(server.lines("entered")), DEADLINE)
        await server.stop()
        (tmp_path / "gate").touch()
        await server.start()
        status, out, err = await submitting.end()
    assert (status, out) == (0, "through"), err


async def _true_if(value: object) -> bool:
    return bool(value)


async def test_a_service_that_does_not_run_is_exit_status_5(tmp_path):
    async with serving(uvicorn(), tmp_path) as server:
        pass
    status, out, err = await run(tmp_path, "submit", "/square", *url_of(server))
    assert (status, out, err.count("\n")) == (5, "", 1)
    assert "cannot be reached" in err
