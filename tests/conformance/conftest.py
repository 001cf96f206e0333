"""The behavior that every store must have. A second backend is one more entry in `BACKENDS`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from queue_middleware.jobs.store import JobStore
from queue_middleware.settings import Settings
from queue_middleware.stores.sqlite import SQLiteStore
from tests.support.clock import ManualClock
from tests.support.database_template import lay_blank
from tests.support.invariants import broken_invariants


class Backend(Protocol):
    def make(self, clock: ManualClock, **options: Any) -> JobStore: ...

    def die(self, store: JobStore) -> None:
        """Make the process of this store count as killed."""

    def broken_invariants(self) -> dict[str, list[tuple[Any, ...]]]:
        """The violated invariants of the database, read after all stores are closed."""


class SQLiteBackend:
    """All stores of one test share one file."""

    def __init__(self, folder: Path) -> None:
        self._database = str(lay_blank(folder / "queue.sqlite3"))

    def make(self, clock: ManualClock, **options: Any) -> JobStore:
        settings = Settings.load({"database": self._database, "min_free_disk": 0, **options}, {})
        return SQLiteStore(settings, clock, clock.boot)

    def die(self, store: JobStore) -> None:
        assert isinstance(store, SQLiteStore)
        store._files.liveness.disown()

    def broken_invariants(self) -> dict[str, list[tuple[Any, ...]]]:
        return broken_invariants(Path(self._database))


BACKENDS: dict[str, Callable[[Path], Backend]] = {"sqlite": SQLiteBackend}


class Stores:
    """Opens stores for a test and closes them afterwards."""

    def __init__(self, backend: Backend, clock: ManualClock, stack: AsyncExitStack) -> None:
        self._backend = backend
        self._clock = clock
        self._stack = stack

    def die(self, store: JobStore) -> None:
        self._backend.die(store)

    async def open(self, **options: Any) -> JobStore:
        store = self._backend.make(self._clock, **options)
        await store.open()
        self._stack.push_async_callback(store.close)
        return store


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=sorted(BACKENDS))
async def stores(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Stores]:
    backend = BACKENDS[request.param](tmp_path)
    async with AsyncExitStack() as stack:
        yield Stores(backend, clock, stack)
    assert not backend.broken_invariants()


@pytest.fixture
async def store(stores: Stores) -> JobStore:
    return await stores.open()
