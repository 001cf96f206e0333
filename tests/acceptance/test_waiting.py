"""A thousand clients wait with `Prefer: wait=60` on one process: nothing is read meanwhile, and each gets its response."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from tests.support.queue_client import eventually

from .servers import Server, serving, uvicorn
from .test_streams import memory, work

pytestmark = pytest.mark.slow

CLIENTS = 1000
WAITED = ("job", "changed", "snapshots", "result")
"""The queries of a client that waits."""


class Poll:
    """One connection whose request waits."""

    def __init__(self, socket: anyio.abc.SocketStream, path: str) -> None:
        self._socket = socket
        self._path = path
        self.head = b""
        self.body = b""

    async def send(self) -> None:
        await self._socket.send(f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=60\r\n\r\n".encode())

    async def read(self) -> None:
        """Read the whole response."""
        received = b""
        with anyio.fail_after(60):
            while b"\r\n\r\n" not in received:
                received += await self._socket.receive()
            self.head, _, self.body = received.partition(b"\r\n\r\n")
            length = int(self.head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while len(self.body) < length:
                self.body += await self._socket.receive()

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def value(self) -> Any:
        return json.loads(self.body)

    @property
    def is_applied(self) -> bool:
        return b"preference-applied: wait=60" in self.head.lower()


@asynccontextmanager
async def polling(server: Server, paths: Sequence[str]) -> AsyncIterator[list[Poll]]:
    async with server.sockets(len(paths)) as sockets:
        polls = [Poll(socket, f"/fal/queue/requests/{path}") for socket, path in zip(sockets, paths, strict=True)]
        for poll in polls:
            await poll.send()
        await eventually(lambda: has_waiting(server, len(paths)))
        yield polls


async def inside(server: Server) -> dict[str, Any]:
    async with server.client() as client:
        value: dict[str, Any] = (await client.get("/inside")).json()
        return value


async def has_waiting(server: Server, count: int) -> bool:
    return bool((await inside(server))["waiting"] == count)


async def statements(server: Server) -> dict[str, int]:
    """How often each query of a client that waits has been executed."""
    counted = (await inside(server))["statements"]
    return {name: counted.get(name, 0) for name in WAITED}


async def submitted(server: Server, path: str) -> list[str]:
    ids: dict[int, str] = {}
    numbers = iter(range(CLIENTS))

    async def submit() -> None:
        for number in numbers:
            ids[number] = await queue.submit("POST", path, json={"n": number})

    async with server.queue() as queue, anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(submit)
    return [ids[number] for number in range(CLIENTS)]


async def read_all(polls: Sequence[Poll]) -> None:
    async with anyio.create_task_group() as tasks:
        for poll in polls:
            tasks.start_soon(poll.read)


async def test_a_thousand_clients_wait_for_what_another_process_commits(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    (here / "count-statements").touch()
    options = {"max_queued": 2 * CLIENTS, "max_queued_per_client": 2 * CLIENTS, "shutdown_timeout": "100ms"}
    quiet = uvicorn("--log-level", "warning")
    async with serving(quiet, here, concurrency=1, **options) as server:
        assert server.process is not None
        pid = server.process.pid
        async with server.queue() as queue:
            await queue.submit("POST", "/gated")  # occupies the only slot of this process
            await eventually(lambda: server.lines("entered"))
        ids = await submitted(server, "/square")
        before, lean = await inside(server), memory(pid)
        async with polling(server, [f"{request_id}/response" for request_id in ids]) as polls:
            assert (memory(pid) - lean) / CLIENTS < 40 * 1024  # most of it is the server's, for the connection
            await anyio.sleep(1)  # the last clients may have subscribed without having read their requests yet
            read, full = await statements(server), memory(pid)
            await anyio.sleep(3)
            assert memory(pid) - full < 2**20
            assert await statements(server) == read
            async with serving(quiet, elsewhere, database=server.database, **options) as worker:
                await read_all(polls)
                assert len(worker.lines("runs")) == CLIENTS
                assert worker.complaints() == []
            assert server.lines("runs") == []
            for number, poll in enumerate(polls):
                assert (poll.status, poll.value, poll.is_applied) == (200, {"n": number, "square": number**2}, True)
            after = await inside(server)
            assert after["waiting"] == 0
            assert after["tasks"] <= before["tasks"] + 8, "no task is left for a wait"
            assert memory(pid) - full < 16 * 2**20
        assert server.complaints() == []


async def test_a_signal_ends_a_thousand_waits_with_the_present_status(tmp_path: Path) -> None:
    """At once, while requests still run, with little work; time on a busy machine would show nothing."""
    options = {"max_queued_per_client": CLIENTS, "shutdown_timeout": "60s"}
    async with serving(uvicorn("--log-level", "warning"), tmp_path, **options) as server:
        ids = await submitted(server, "/gated")
        await eventually(lambda: len(server.lines("entered")) == 8)
        kinds = ["status", "response"] * (CLIENTS // 2)
        paths = [f"{request_id}/{kind}" for request_id, kind in zip(ids, kinds, strict=True)]
        async with polling(server, paths) as polls:
            assert server.process is not None
            before = work(server.process.pid)
            server.process.send_signal(signal.SIGTERM)
            await read_all(polls)
            assert work(server.process.pid) - before < 2
            assert server.process.returncode is None, "it waits for the running requests"
            for kind, poll in zip(kinds, polls, strict=True):
                if kind == "status":
                    assert (poll.status, poll.value["status"] in ("IN_QUEUE", "IN_PROGRESS")) == (202, True)
                else:
                    assert (poll.status, poll.value) == (400, {"detail": "Request is still in progress"})
                assert not poll.is_applied
            (server.directory / "gate").touch()
            await server.ended()
        assert server.complaints() == []
