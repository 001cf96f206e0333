"""What every peer can do, in the way of its own API."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

AT_ONCE = 64
THREADS = 8


def store_url() -> str:
    """Where the peer stores its jobs: a URL, or the path of a folder."""
    return os.environ["PEER_STORE"]


def load_peer(module: str) -> Peer:
    """The peer of a module."""
    peer: Peer = import_module(module).PEER
    return peer


class Peer(ABC):
    """A client of a queue. Its methods are called from one event loop."""

    async def open(self) -> None:  # noqa: B027  # not every client has to connect
        """Connect, and create what has to exist before the worker starts."""

    async def close(self) -> None:  # noqa: B027
        """Disconnect."""

    @abstractmethod
    async def submit(self, body: str) -> str:
        """Submit a job that returns this body. When this returns, the job is on disk."""

    @abstractmethod
    async def result(self, job: str) -> str | None:
        """The stored result; None before there is one."""

    @abstractmethod
    async def stored(self) -> int:
        """How many of the jobs that this client has submitted have a stored result."""

    async def submit_many(self, body: str, count: int) -> str:
        """Submit jobs, as many at once as the API likes. The id of one of them."""
        left, job = count, ""

        async def submitter() -> None:
            nonlocal left, job
            while left > 0:
                left -= 1
                job = await self.submit(body)

        await asyncio.gather(*(submitter() for _ in range(AT_ONCE)))
        return job


class BlockingPeer(Peer):
    """A client whose API blocks: an asynchronous application calls it in threads, a producer without event loop directly."""

    @abstractmethod
    def submit_now(self, body: str) -> str: ...

    @abstractmethod
    def result_now(self, job: str) -> str | None: ...

    @abstractmethod
    def stored_now(self) -> int: ...

    async def submit(self, body: str) -> str:
        return await asyncio.to_thread(self.submit_now, body)

    async def result(self, job: str) -> str | None:
        return await asyncio.to_thread(self.result_now, job)

    async def stored(self) -> int:
        return await asyncio.to_thread(self.stored_now)

    async def submit_many(self, body: str, count: int) -> str:
        with ThreadPoolExecutor(THREADS) as threads:
            jobs = await asyncio.to_thread(lambda: list(threads.map(lambda _: self.submit_now(body), range(count))))
        return jobs[-1]
