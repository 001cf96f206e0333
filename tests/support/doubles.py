"""Test doubles for what a loop works with: observers, a store that fails, hosts that respond late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

A = TypeVar("A")
L = TypeVar("L")


class EventQueue:
    """An observer with which a test waits for the next event."""

    def __init__(self, kinds: frozenset[type] | None = None) -> None:
        self.kinds = kinds
        self.queue: asyncio.Queue[Any] = asyncio.Queue()

    def on_event(self, event: object) -> None:
        self.queue.put_nowait(event)

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            return await self.queue.get()


class EventRecorder:
    """An observer that keeps all events."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_event(self, event: object) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


class FailingStore:
    """A proxy of a store: one method, of the store or of its `webhooks`, first raises the given errors in turn."""

    def __init__(self, inner: Any, method: str, *errors: Exception) -> None:
        self._inner, self._method, self._errors = inner, method, list(errors)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "webhooks":
            return FailingStore(found, self._method, *self._errors)
        return self._fail_first(found) if name == self._method else found

    def _fail_first(self, method: Any) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            if self._errors:
                raise self._errors.pop(0)
            return await method(*arguments, **options)

        return call


class FakeHosts(Generic[A]):
    """Hosts that give the responses in turn and repeat the last one. They do not respond while the gate is closed."""

    def __init__(self, *responses: A | Exception) -> None:
        self.responses = list(responses)
        self.arrived = asyncio.Semaphore(0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.held_prefix = ""
        """The gate applies to URLs with this prefix."""
        self.in_flight = self.max_in_flight = 0

    async def respond(self, url: str) -> A:
        response = self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
        self.in_flight += 1
        self.max_in_flight = max(self.in_flight, self.max_in_flight)
        self.arrived.release()
        try:
            if url.startswith(self.held_prefix):
                await self.gate.wait()
        finally:
            self.in_flight -= 1
        if isinstance(response, Exception):
            raise response
        return response


@asynccontextmanager
async def running(loop: L) -> AsyncIterator[L]:
    """Run an object that has `run` and `stop` inside the block."""
    task = asyncio.create_task(loop.run())  # type: ignore[attr-defined]
    try:
        yield loop
    finally:
        loop.stop()  # type: ignore[attr-defined]
        async with asyncio.timeout(10):
            await task


def cancel_tasks(prefix: str) -> list[asyncio.Task[Any]]:
    """Cancel the tasks whose names start with `prefix`, and return them."""
    tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith(prefix)]
    for task in tasks:
        task.cancel()
    return tasks
