"""arq on Redis. `python -m benchmarks.peers.arq` runs its worker."""

from __future__ import annotations

import asyncio
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.jobs import Job
from arq.worker import Worker

from .peer import AT_ONCE, Peer, store_url

_QUEUE = "arq:queue"
_POLL_DELAY = 0.002


async def echo(context: dict[str, Any], body: str) -> str:
    """The job."""
    return body


class Arq(Peer):
    def __init__(self) -> None:
        self._submitted = 0

    async def open(self) -> None:
        self._pool = await create_pool(RedisSettings.from_dsn(store_url()))

    async def close(self) -> None:
        await self._pool.aclose()

    async def submit(self, body: str) -> str:
        job = await self._pool.enqueue_job("echo", body)
        assert job is not None
        self._submitted += 1
        return str(job.job_id)

    async def result(self, job: str) -> str | None:
        info = await Job(job, self._pool).result_info()
        return info.result if info else None

    async def stored(self) -> int:
        # A job leaves the queue in the transaction that stores its result.
        return self._submitted - int(await self._pool.zcard(_QUEUE))


PEER = Arq()


async def work() -> None:
    """Run a worker until SIGTERM."""
    settings = RedisSettings.from_dsn(store_url())
    await Worker([echo], redis_settings=settings, max_jobs=AT_ONCE, poll_delay=_POLL_DELAY).async_run()


if __name__ == "__main__":
    asyncio.run(work())
