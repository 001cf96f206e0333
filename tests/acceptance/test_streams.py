"""The status stream over real sockets: shutdown of every server, changes in other processes, and a thousand clients."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.queue_client import eventually

from .servers import Command, Server, gunicorn, has_gunicorn_asgi, hypercorn, serving, uvicorn, uvicorn_worker

pytestmark = pytest.mark.slow

needs_asgi_worker = pytest.mark.skipif(not has_gunicorn_asgi(), reason="this gunicorn has no ASGI worker of its own")

UVICORN_WORKER = ("--worker-class", uvicorn_worker())
ASGI_WORKER = ("--worker-class", "asgi")
LISTENERS = 1000


class Stream:
    """One connection that reads a stream."""

    def __init__(self, socket: anyio.abc.SocketStream, request_id: str) -> None:
        self.request_id = request_id
        self._socket = socket
        self._received = b""

    async def open(self) -> None:
        """Send the request, and wait for the head and the first event."""
        path = f"/fal/queue/requests/{self.request_id}/status/stream"
        await self._socket.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        while not self.events:
            self._received += await self._socket.receive()
        assert self._received.startswith(b"HTTP/1.1 200 ")

    async def read(self) -> None:
        """Read to the end."""
        with anyio.fail_after(60):
            with suppress(anyio.EndOfStream):
                while True:
                    self._received += await self._socket.receive()

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = self._received.split(b"\n")
        return [
            json.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith(b"data: ") and line.endswith(b"}")
        ]

    @property
    def is_whole(self) -> bool:
        """Whether the response ended properly and was not cut off."""
        return self._received.endswith(b"\r\n0\r\n\r\n")


@asynccontextmanager
async def listening(server: Server, ids: list[str]) -> AsyncIterator[list[Stream]]:
    async with server.sockets(len(ids)) as sockets:
        streams = [Stream(socket, request_id) for socket, request_id in zip(sockets, ids, strict=True)]
        for stream in streams:
            await stream.open()
        yield streams


async def submitted(server: Server, count: int) -> list[str]:
    """The ids of this many requests, which wait at the gate or for a slot."""
    ids: list[str] = []
    numbers = iter(range(count))

    async def submit() -> None:
        for _ in numbers:
            ids.append(await queue.submit("POST", "/gated"))  # noqa: PERF401

    async with server.queue() as queue, anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(submit)
    return ids


async def read_all(streams: list[Stream]) -> None:
    async with anyio.create_task_group() as tasks:
        for stream in streams:
            tasks.start_soon(stream.read)


HYPERCORN_PAIR = hypercorn("--workers", "2")


@pytest.mark.parametrize(
    ("command", "workers", "how"),
    [
        pytest.param(uvicorn(), 1, signal.SIGTERM, id="uvicorn"),
        pytest.param(uvicorn(), 1, signal.SIGINT, id="uvicorn-sigint"),
        pytest.param(uvicorn("--loop", "asyncio", "--http", "h11"), 1, signal.SIGTERM, id="uvicorn-pure-python"),
        pytest.param(uvicorn("--workers", "2"), 2, signal.SIGTERM, id="uvicorn-2-workers"),
        pytest.param(gunicorn(*UVICORN_WORKER), 1, signal.SIGTERM, id="gunicorn-uvicorn"),
        pytest.param(gunicorn(*ASGI_WORKER), 1, signal.SIGTERM, id="gunicorn-asgi", marks=needs_asgi_worker),
        pytest.param(hypercorn(), 1, signal.SIGTERM, id="hypercorn"),
        pytest.param(hypercorn("--workers", "0"), 1, signal.SIGTERM, id="hypercorn-0-workers"),
        pytest.param(HYPERCORN_PAIR, 2, signal.SIGTERM, id="hypercorn-2-workers"),
    ],
)
async def test_open_streams_do_not_delay_the_shutdown_of_a_server(
    command: Command, workers: int, how: signal.Signals, tmp_path: Path
) -> None:
    """All streams end while running requests still hold the shutdown up; when these have ended, nothing is left to wait for."""
    # As many slots as requests, so that every worker runs one: a worker without any would end at once.
    async with serving(command, tmp_path, workers, shutdown_timeout="120s", concurrency=str(4 // workers)) as server:
        ids = await submitted(server, 4)
        await eventually(lambda: len(server.lines("entered")) == 4)
        async with listening(server, ids) as streams:
            assert server.process is not None
            server.process.send_signal(how)
            await read_all(streams)
            assert server.process.poll() is None
            assert server.lines("closed") == []
            assert [stream.events[-1]["status"] for stream in streams] == ["IN_PROGRESS"] * 4
            assert all(stream.is_whole for stream in streams)
            (tmp_path / "gate").touch()
            await server.ended()
        # Hypercorn kills its other workers as soon as the first has ended, whatever their state.
        assert len(server.lines("closed")) == workers or (command is HYPERCORN_PAIR and server.lines("closed"))
        assert server.lines("tidied") == []
        assert server.complaints() == []


async def test_changes_of_one_process_reach_streams_of_another_at_once(tmp_path: Path) -> None:
    """The processes wake each other: none of them checks for changes during the test."""
    (tmp_path / "no-polling").touch()
    async with serving(uvicorn("--workers", "4"), tmp_path, workers=4) as server:
        ids = await submitted(server, 4)
        await eventually(lambda: len(server.lines("entered")) == 4)
        # Each connection may be in any of the processes, so most of these streams are where nothing runs.
        async with listening(server, ids * 4) as streams:
            pipes = len(set(server.lines("streams")))
            assert pipes > 1
            await eventually(lambda: len(list(tmp_path.glob("queue.sqlite3.wakeup-*[!w]"))) == pipes)
            async with anyio.create_task_group() as tasks:
                for stream in streams:
                    tasks.start_soon(stream.read)
                (tmp_path / "gate").touch()
            assert all(stream.events[-1]["status"] == "COMPLETED" for stream in streams)
            assert all(stream.is_whole for stream in streams)
        assert server.complaints() == []


def memory(pid: int) -> int:
    """Bytes of memory that a process uses."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def work(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def share(pid: int, seconds: float) -> float:
    """The share of a processor that a process uses."""
    began, before = time.monotonic(), work(pid)
    await anyio.sleep(seconds)
    return (work(pid) - before) / (time.monotonic() - began)


@pytest.fixture
async def busy_server(tmp_path: Path) -> AsyncIterator[tuple[Server, list[str]]]:
    """A server with a thousand requests, of which eight run."""
    options = {"max_queued_per_client": LISTENERS, "shutdown_timeout": "100ms"}
    async with serving(uvicorn("--log-level", "warning"), tmp_path, **options) as server:
        yield server, await submitted(server, LISTENERS)


async def test_a_thousand_idle_streams_cost_little_and_each_receives_its_end(busy_server: tuple[Server, list[str]]) -> None:
    server, ids = busy_server
    assert server.process is not None
    pid = server.process.pid
    without = await share(pid, 3)
    lean = memory(pid)
    async with listening(server, ids) as streams:
        await anyio.sleep(1)
        full = memory(pid)
        assert (full - lean) / LISTENERS < 40 * 1024  # most of it is the server's, for the connection
        assert await share(pid, 5) < without + 0.03
        assert memory(pid) - full < 2**20
        (server.directory / "gate").touch()
        await read_all(streams)
        for stream in streams:
            assert stream.events[-1]["status"] == "COMPLETED"
            assert stream.events[-1]["request_id"] == stream.request_id
            assert stream.is_whole
        assert memory(pid) - full < 16 * 2**20  # a thousand requests were run meanwhile
    assert await share(pid, 3) < without + 0.03
    assert server.complaints() == []


async def test_a_thousand_streams_do_not_delay_the_shutdown(tmp_path: Path) -> None:
    """They end at once, while requests still run, with little work; time on a busy machine would show nothing."""
    options = {"max_queued_per_client": LISTENERS, "shutdown_timeout": "60s"}
    async with serving(uvicorn("--log-level", "warning"), tmp_path, **options) as server:
        ids = await submitted(server, LISTENERS)
        async with listening(server, ids) as streams:
            assert server.process is not None
            pid = server.process.pid
            before = work(pid)
            server.process.send_signal(signal.SIGTERM)
            await read_all(streams)
            assert work(pid) - before < 0.5
            assert server.process.poll() is None, "it waits for the running requests"
            assert all(stream.is_whole for stream in streams)
            (server.directory / "gate").touch()
            await server.ended()
        assert server.complaints() == []
