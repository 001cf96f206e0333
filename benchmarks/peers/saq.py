"""SAQ on Redis. `python -m benchmarks.peers.saq` runs its worker."""

from __future__ import annotations

import asyncio
from typing import Any

from saq import Queue, Worker

from .peer import AT_ONCE, Peer, store_url


async def echo(context: dict[str, Any], *, body: str) -> str:
    """The job."""
    return body


class Saq(Peer):
    def __init__(self) -> None:
        self._submitted = 0

    async def open(self) -> None:
        self._queue = Queue.from_url(store_url())
        await self._queue.connect()

    async def close(self) -> None:
        await self._queue.disconnect()

    async def submit(self, body: str) -> str:
        job = await self._queue.enqueue("echo", body=body)
        assert job is not None
        self._submitted += 1
        return str(job.key)

    async def result(self, job: str) -> str | None:
        stored = await self._queue.job(job)
        return stored.result if stored else None

    async def stored(self) -> int:
        return self._submitted - int(await self._queue.count("incomplete"))


PEER = Saq()

if __name__ == "__main__":
    queue = Queue.from_url(store_url())
    asyncio.run(Worker(queue, functions=[echo], concurrency=AT_ONCE).start())
