"""Opens the queue's database: for reading, which changes and creates nothing, or as one more process of the queue."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

from queue_middleware.events import Emit, Event, Finished
from queue_middleware.observability.emitter import Emitter
from queue_middleware.observability.metrics.meter import Meter
from queue_middleware.settings import Settings
from queue_middleware.stores import Location, ReadOnlyStores, Stores, locate, open_for_reading, open_stores

from .exit_codes import Unreachable


class Counting(NamedTuple):
    """What counts the acts of a command."""

    emit: Emit
    submitted: Callable[[str], None] | None
    """Counts a submission of a route; None without metrics."""


def settings_of(chosen: argparse.Namespace) -> Settings:
    """The options of the service: from the environment, and `--database`. Raises `SettingsError`."""
    return Settings.load({} if chosen.database is None else {"database": chosen.database})


def existing(settings: Settings) -> Location:
    """Where the database is. Raises `Unreachable` if it does not exist: none must be created in the wrong folder."""
    location = locate(settings.database)
    if not location.exists():
        raise Unreachable(f"there is no queue at {location.name}; name its database with --database or QUEUE_DATABASE")
    return location


@asynccontextmanager
async def reading(chosen: argparse.Namespace) -> AsyncIterator[ReadOnlyStores]:
    """The queue's ports on a connection that only reads. Works while the service runs, and while it does not.

    Nothing is created or changed, and no running process waits for it. Raises `Unreachable` and `StoreError`.
    """
    settings = settings_of(chosen)
    existing(settings)
    async with open_for_reading(settings, _clock(chosen)) as stores:
        yield stores


@asynccontextmanager
async def acting(chosen: argparse.Namespace) -> AsyncIterator[Stores]:
    """The queue's ports in one more process on the database, which executes no request. Raises `Unreachable`, `StoreError`.

    The schema must be of this release: a command must not migrate the database below a service of another release.
    """
    async with reading(chosen):
        pass  # it checks the schema
    settings = settings_of(chosen)
    with as_owner(existing(settings)):
        stores = open_stores(settings, _clock(chosen))
        await stores.database.open()
        try:
            yield stores
        finally:
            await stores.database.close()


@contextmanager
def as_owner(location: Location) -> Iterator[None]:
    """Root becomes the user who owns the database, so that this user's service can open the files that are created."""
    owner = location.secrets.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


@asynccontextmanager
async def counting(chosen: argparse.Namespace, stores: Stores) -> AsyncIterator[Counting]:
    """Counts what this command does in the metrics of the queue. The numbers are stored at the end."""
    if not settings_of(chosen).metrics:
        yield Counting(lambda event: None, None)
        return
    meter = Meter(chosen.clock)
    stores.metrics.attach(meter)
    try:
        yield Counting(Emitter((meter, _Ends())), meter.submitted)
    finally:
        await stores.metrics.close()


class _Ends:
    """Wants to know of the ends of requests, which a `Meter` counts only if they are reported to another observer."""

    kinds = frozenset({Finished})

    def on_event(self, event: Event) -> None:
        """Nothing else is to be done."""


def _clock(chosen: argparse.Namespace) -> Callable[[], int] | None:
    """The clock of the store; None for that of the system."""
    clock: Callable[[], float] = chosen.clock
    return None if clock is time.time else lambda: round(clock() * 1000)
