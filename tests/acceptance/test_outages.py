"""Faults of real machines: processes that die, a database that is unavailable, full disks, clocks that jump.

Each test checks that nothing acknowledged is lost or wrong, that nothing runs twice unless its process died, and that no
webhook is missing.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from itertools import count
from pathlib import Path

import anyio
import pytest

from tests.support.queue_client import eventually
from tests.support.webhook_receiver import Receiver, receiving

from .load import PATIENCE, Load, judge, repeated, repeated_without_death
from .servers import Server, serving, uvicorn

pytestmark = pytest.mark.slow

LEASE = 2.0
OUTAGE = 3 * LEASE
"""Seconds: longer than a lease and the following one."""
LONG = 8
"""Requests that run while the gate is closed."""
HOUR = 3600


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [2, 4])
async def test_sixty_seconds_of_kill_9_lose_nothing(workers: int, tmp_path: Path) -> None:
    chance = random.Random(workers)
    options = {"concurrency": 4, "max_attempts": 50, "webhook_schedule": ",".join(["300ms"] * 100)}
    async with (
        receiving() as receiver,
        serving(uvicorn("--workers", str(workers)), tmp_path, workers, **options) as server,
    ):
        load = Load(server, receiver)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load.run)
            end = anyio.current_time() + 60
            while anyio.current_time() < end:
                await load.goes_on()
                if chance.random() < 0.2:
                    await server.kill_all()
                    await server.start(workers)
                else:
                    await kill_one_worker(server, chance, workers)
            await load.goes_on()
            tasks.cancel_scope.cancel()
        await judge(load)
        assert [line for line in server.complaints() if "locked" in line] == []
        assert repeated(server), "no running request was killed, so the test shows nothing"
        assert repeated_without_death(server, server.killed) == {}


async def kill_one_worker(server: Server, chance: random.Random, workers: int) -> None:
    victim = chance.choice(server.workers())
    server.kill_worker(victim)
    await eventually(lambda: len(server.workers()) == workers and victim not in server.workers(), 30)


@asynccontextmanager
async def disturbed(directory: Path, **options: object) -> AsyncIterator[Server]:
    """Two workers with long requests and a load of short ones. All webhooks are checked at the end."""
    settings = {
        "lease": LEASE,
        "concurrency": LONG,
        "on_crash": "fail",
        "webhook_schedule": ",".join(["300ms"] * 200),
        **options,
    }
    async with receiving() as receiver, serving(uvicorn("--workers", "2"), directory, 2, **settings) as server:
        running = await begin_long_ones(server, receiver)
        load = Load(server, receiver)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load.run, 2)
            await load.goes_on()
            yield server
            await load.goes_on()
            tasks.cancel_scope.cancel()
        assert len(server.lines("entered")) == LONG, "a running request was started again"
        (directory / "gate").touch()
        await end_well(server, receiver, running)
        await judge(load, clocks_differ_by=HOUR)
        assert repeated_without_death(server, server.killed) == {}
        assert "died" not in server.output


async def begin_long_ones(server: Server, receiver: Receiver) -> list[str]:
    async with server.queue() as queue:
        running = [await queue.submit("POST", f"/gated?fal_webhook={receiver.url}/long") for _ in range(LONG)]
        await eventually(lambda: len(server.lines("entered")) == LONG)
    return running


async def end_well(server: Server, receiver: Receiver, running: list[str]) -> None:
    async with server.queue() as queue:
        for request_id in running:
            assert (await queue.response(request_id)).text == "through"
            await eventually(lambda request_id=request_id: receiver.webhooks_for(request_id), PATIENCE)
    assert sorted(server.lines("entered")) == sorted(running)


async def test_a_database_that_is_locked_for_longer_than_a_lease(tmp_path: Path) -> None:
    async with disturbed(tmp_path) as server:
        with closing(sqlite3.connect(server.database, isolation_level=None, timeout=30)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            await anyio.sleep(OUTAGE)
            connection.execute("ROLLBACK")


async def test_a_disk_that_is_full_for_longer_than_a_lease(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with disturbed(tmp_path, database=disk / "queue.sqlite3") as server:
            filler = disk / "filler"
            fill(filler)
            await refused(server)
            await anyio.sleep(OUTAGE)
            filler.unlink()


async def refused(server: Server) -> None:
    """Wait until even the smallest submissions are refused, because then the write-ahead log has no space left either."""
    questions = count(-1, -1)
    async with server.client() as client:

        async def are_refused() -> bool:
            responses = [await client.post("/fal/queue/submit/square", json={"n": next(questions)}) for _ in range(20)]
            return all(response.status_code == 503 for response in responses)

        await eventually(are_refused, PATIENCE)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A small file system in memory; only root can create one."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], check=False, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(filler: Path) -> None:
    """Use up all free space."""
    with filler.open("wb", buffering=0) as file:
        size = 2**20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
async def test_a_wall_clock_that_jumps_by_an_hour_and_back(jump: int, tmp_path: Path) -> None:
    (tmp_path / "wall-clock").write_bytes(struct.pack("q", 0))

    def set_clock(seconds: int) -> None:
        with (tmp_path / "wall-clock").open("r+b") as file:
            file.write(struct.pack("q", seconds))

    # With the default lease, leases are checked many times before one is renewed.
    async with disturbed(tmp_path, lease=60):
        # The last step is the hour that passes: a webhook that became due by the wrong clock is sent then and not before.
        for seconds in (jump, 0, HOUR):
            set_clock(seconds)
            await anyio.sleep(OUTAGE)


async def test_a_machine_that_is_suspended_for_longer_than_a_lease(tmp_path: Path) -> None:
    """All processes are suspended and resumed. In `test_clocks`, one that is suspended alone loses its work to others."""
    async with disturbed(tmp_path) as server:
        server.signal_all(signal.SIGSTOP)
        await anyio.sleep(OUTAGE)
        server.signal_all(signal.SIGCONT)
