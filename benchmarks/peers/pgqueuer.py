"""pgqueuer on PostgreSQL. `python -m benchmarks.peers.pgqueuer` runs its worker.

It stores no results, so the job stores its own, in a table.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import asyncpg
from pgqueuer import AsyncpgPoolDriver, Job, PgQueuer, Queries

from .peer import AT_ONCE, Peer, store_url

_CONNECTIONS = 16


async def _pool() -> Any:
    return await asyncpg.create_pool(store_url(), min_size=1, max_size=_CONNECTIONS)


class Pgqueuer(Peer):
    async def open(self) -> None:
        self._pool = await _pool()
        self._queries = Queries(AsyncpgPoolDriver(self._pool))
        if not await self._queries.schema_is_installed():
            await self._queries.install()
            await self._pool.execute("CREATE TABLE peer_result (job bigint PRIMARY KEY, body text NOT NULL)")

    async def close(self) -> None:
        await self._pool.close()

    async def submit(self, body: str) -> str:
        (job,) = await self._queries.enqueue("echo", body.encode())
        return str(job)

    async def result(self, job: str) -> str | None:
        body: str | None = await self._pool.fetchval("SELECT body FROM peer_result WHERE job = $1", int(job))
        return body

    async def stored(self) -> int:
        return int(await self._pool.fetchval("SELECT count(*) FROM peer_result"))


PEER = Pgqueuer()


async def work() -> None:
    """Run a worker until SIGTERM."""
    pool = await _pool()
    queue = PgQueuer(AsyncpgPoolDriver(pool))

    @queue.entrypoint("echo")
    async def echo(job: Job) -> None:
        await pool.execute("INSERT INTO peer_result (job, body) VALUES ($1, $2)", job.id, (job.payload or b"").decode())

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queue.shutdown.set)
    await queue.run(batch_size=AT_ONCE)


if __name__ == "__main__":
    asyncio.run(work())
