"""Four processes on one file: they share the work, and nothing runs twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from tests.support.queue_client import Queue, eventually

from .servers import Server, serving, uvicorn

pytestmark = pytest.mark.slow

SUBMISSIONS = 2000
AT_ONCE = 32


async def test_two_thousand_submissions_are_each_run_exactly_once(tmp_path: Path) -> None:
    async with (
        serving(uvicorn("--workers", "4"), tmp_path, workers=4, max_queued_per_client=SUBMISSIONS) as server,
        server.queue() as queue,
    ):
        ids: dict[int, str] = {}
        questions = iter(range(SUBMISSIONS))
        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(ask, queue, questions, ids)
        assert len(set(ids.values())) == SUBMISSIONS

        unread = iter(ids.items())
        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(read, queue, unread)
        runs = Counter(server.lines("runs"))
        assert runs == Counter(str(number) for number in range(SUBMISSIONS))
        assert server.complaints() == []


async def ask(queue: Queue, questions: Iterator[int], ids: dict[int, str]) -> None:
    for number in questions:
        ids[number] = await queue.submit("POST", "/square", json={"n": number})


async def read(queue: Queue, unread: Iterator[tuple[int, str]]) -> None:
    for number, request_id in unread:
        response = await queue.response(request_id)
        assert (response.status_code, response.json()) == (200, {"n": number, "square": number * number})


async def test_positions_are_those_of_the_shared_queue(tmp_path: Path) -> None:
    """Whichever process responds, a request's position is the number of requests before it in the file."""
    async with serving(uvicorn("--workers", "4"), tmp_path, workers=4, concurrency=2) as server, server.queue() as queue:
        ids = [await queue.submit("POST", "/gated") for _ in range(40)]
        await eventually(lambda: len(server.lines("entered")) == 8)
        assert await standings(server, ids) == [None] * 8 + list(range(32))

        for gone in (ids[10], ids[39]):
            assert (await queue.cancel(gone)).status_code == 202
        left = [request_id for request_id in ids if request_id not in (ids[10], ids[39])]
        assert await standings(server, left) == [None] * 8 + list(range(30))

        (tmp_path / "gate").touch()
        for request_id in left:
            assert (await queue.response(request_id)).text == "through"
        assert sorted(server.lines("entered")) == sorted(left)
        assert server.complaints() == []


async def standings(server: Server, ids: list[str]) -> list[int | None]:
    """The position of each request, None for running ones; new connections reach any of the processes."""
    positions: list[int | None] = []
    for request_id in ids:
        async with server.queue() as queue:
            status = await queue.status(request_id)
            assert status["status"] == ("IN_PROGRESS" if status.get("queue_position") is None else "IN_QUEUE")
            positions.append(status.get("queue_position"))
    return positions
