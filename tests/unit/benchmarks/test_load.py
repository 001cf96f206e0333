"""The load generator, the processes that it measures, and their CPU time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from benchmarks.load import hammer, percentile, traced
from benchmarks.processor_time import ProcessorTime, processor_time, resident_bytes, with_descendants
from benchmarks.servers import process, python, serving


class Responder:
    """Responds to requests without a body, and keeps what it received."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.status = b"200 OK"

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            try:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            except asyncio.IncompleteReadError:
                break
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\nok" % self.status)
        writer.close()


@pytest.fixture
async def responder() -> AsyncIterator[tuple[Responder, int]]:
    app = Responder()
    server = await asyncio.start_server(app.connected, "127.0.0.1", 0)
    async with server:
        yield app, server.sockets[0].getsockname()[1]


async def test_every_request_is_sent_once(responder: tuple[Responder, int]) -> None:
    app, port = responder
    requests = traced("/x", b"", 20)
    run = await hammer(port, requests, 20, connections=3)
    assert sorted(app.requests) == sorted(requests)
    assert (run.count, len(run.latencies)) == (20, 20)
    assert run.latencies == sorted(run.latencies)


async def test_a_response_other_than_200_fails_the_run(responder: tuple[Responder, int]) -> None:
    app, port = responder
    app.status = b"503 Service Unavailable"
    with pytest.raises(RuntimeError, match="2 of 2 responses were not 200"):
        await hammer(port, traced("/x", b"", 2), 2)


def test_each_traced_request_differs_and_has_the_same_length() -> None:
    requests = traced("/x", b"body", 10)
    assert len(set(requests)) == 10
    assert len({len(request) for request in requests}) == 1


def test_a_percentile_is_one_of_the_values() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 3.0, 4.0, 4.0]


# --- processes


def test_a_process_has_ended_after_its_block() -> None:
    with process(python("-c", "input()"), stop=signal.SIGKILL) as running:
        assert running.pid in with_descendants([os.getpid()]) or sys.platform != "linux"
    assert running.returncode is not None


def test_a_server_that_ends_at_once_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="the server did not start"), serving(lambda port: python("-c", "exit(7)")):
        pass
    assert "ended by itself with status 7" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="from /proc")
def test_cpu_time_and_memory_are_those_of_the_process() -> None:
    before = processor_time([os.getpid()])
    sum(range(2_000_000))
    used = processor_time([os.getpid()]) - before
    assert used.main > 0
    assert set(used.per(10)) == {"cpu", "cpu main thread", "cpu other threads"}
    assert resident_bytes(os.getpid()) > 2**20


def test_a_process_that_is_gone_has_used_nothing() -> None:
    assert processor_time([2**30]) == ProcessorTime()
    assert ProcessorTime().per(10) == {}
    assert resident_bytes(2**30) == 0
