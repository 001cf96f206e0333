"""Opens the queue's database: for reading, which changes and creates nothing, or as one more process of the queue."""

from __future__ import annotations

import argparse
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from queue_middleware.settings import Settings
from queue_middleware.stores import Location, ReadOnlyStores, Stores, locate, open_for_reading, open_stores

from .exit_codes import Unreachable


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
    stores = open_stores(settings_of(chosen), _clock(chosen))
    await stores.database.open()
    try:
        yield stores
    finally:
        await stores.database.close()


def _clock(chosen: argparse.Namespace) -> Callable[[], int] | None:
    """The clock of the store; None for that of the system."""
    clock: Callable[[], float] = chosen.clock
    return None if clock is time.time else lambda: round(clock() * 1000)
