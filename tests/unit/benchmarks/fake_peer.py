"""A peer that runs nothing: it stores the body as the result at once."""

from __future__ import annotations

from benchmarks.peers.peer import BlockingPeer, Peer


class FakePeer(Peer):
    def __init__(self) -> None:
        self.opened = 0
        self.results: dict[str, str] = {}

    async def open(self) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.opened -= 1

    async def submit(self, body: str) -> str:
        job = str(len(self.results))
        self.results[job] = body
        return job

    async def result(self, job: str) -> str | None:
        return self.results.get(job)

    async def stored(self) -> int:
        return len(self.results)


class FakeBlockingPeer(BlockingPeer):
    def __init__(self) -> None:
        self.bodies: list[str] = []

    def submit_now(self, body: str) -> str:
        self.bodies.append(body)
        return str(len(self.bodies) - 1)

    def result_now(self, job: str) -> str | None:
        return self.bodies[int(job)]

    def stored_now(self) -> int:
        return len(self.bodies)


PEER = FakePeer()
