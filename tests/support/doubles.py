"""In place of those whom a loop talks to: somebody who listens, a port that fails, hosts that keep one waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

A = TypeVar("A")
L = TypeVar("L")


class Ear:
    """Hears events, and lets a test wait for the next one."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Any] = asyncio.Queue()

    def on_event(self, event: object) -> None:
        self.heard.put_nowait(event)

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            return await self.heard.get()


class Memory:
    """Remembers the events that it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_event(self, event: object) -> None:
        self.heard.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.heard if type(event) is kind]


class Faulty:
    """Something one verb of which, or of its outbox, fails some times before it works."""

    def __init__(self, inner: Any, verb: str, *errors: Exception) -> None:
        self._inner, self._verb, self._errors = inner, verb, list(errors)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "webhooks":
            return Faulty(found, self._verb, *self._errors)
        return self._fail_or(found) if name == self._verb else found

    def _fail_or(self, verb: Any) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            if self._errors:
                raise self._errors.pop(0)
            return await verb(*arguments, **options)

        return call


class Wire(Generic[A]):
    """Hosts that give these answers in turn, the last one again and again; they wait while the gate is closed."""

    def __init__(self, *answers: A | Exception) -> None:
        self.answers = list(answers)
        self.arrived = asyncio.Semaphore(0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.held = ""
        """How the addresses begin that the gate is for."""
        self.busy = self.most_busy = 0

    async def answer(self, url: str) -> A:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        self.arrived.release()
        try:
            if url.startswith(self.held):
                await self.gate.wait()
        finally:
            self.busy -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def looping(loop: L) -> AsyncIterator[L]:
    """Something that has `run` and `stop`, for as long as the block lasts."""
    task = asyncio.create_task(loop.run())  # type: ignore[attr-defined]
    try:
        yield loop
    finally:
        loop.stop()  # type: ignore[attr-defined]
        async with asyncio.timeout(10):
            await task


def cancel_tasks(kind: str) -> list[asyncio.Task[Any]]:
    """Those whose names begin so."""
    tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith(kind)]
    for task in tasks:
        task.cancel()
    return tasks
