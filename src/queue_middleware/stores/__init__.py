"""Implementations of the four storage ports, one package for each kind of database.

May import: `tasks`, `webhooks`, `events`, `jobs` and the layers below them; never `worker`, which is in the same layer.
Begin with `open_stores`, which picks an implementation by the scheme of `database`, then `common.job_store` and `sqlite.store`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from queue_middleware.errors import QueueError, SettingsError
from queue_middleware.jobs.operator_store import OperatorStore
from queue_middleware.jobs.store import JobStore
from queue_middleware.observability.metrics.store import MetricsStore
from queue_middleware.settings import Settings
from queue_middleware.tasks.store import TaskStore
from queue_middleware.webhooks.store import WebhookStore

from .administration import DatabaseAdministration
from .common.job_store import CommonJobStore
from .sqlite import ReadOnlySQLiteStore, SQLiteAdministration, SQLiteStore, database_path

_STORES: dict[str, type[SQLiteStore]] = {"": SQLiteStore, "sqlite": SQLiteStore}
"""The store for each scheme of the option `database`; a path has no scheme."""
_ADMINISTRATIONS: dict[str, type[SQLiteAdministration]] = {"": SQLiteAdministration, "sqlite": SQLiteAdministration}
_SUPPORTED = "a path or sqlite:///path"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a database is, without opening it."""

    name: str
    """Its name in messages. Contains no password."""
    secrets: Path
    """Path prefix of the generated secrets: `<secrets>.key` contains the signing keys, `<secrets>.secret` that of callbacks."""

    def exists(self) -> bool:
        """Whether the database exists. Blocking."""
        return self.secrets.exists()


class Database(Protocol):
    """The connection of one process to the database behind the four ports."""

    @property
    def is_first(self) -> bool:
        """Whether no other process had the database open when this one opened it. Only this one reports shared problems."""

    async def open(self) -> None:
        """Create or migrate the database, and start. Raises `StoreError` with the reason when it cannot be used."""

    async def close(self) -> None:
        """Finish pending writes, release the claims that this process still holds, then close everything. Idempotent."""

    def detach_after_fork(self) -> None:
        """In a forked child: close the descriptors that belong to the parent without affecting the parent."""

    def warnings(self) -> list[str]:
        """Present problems, as sentences for the operator. A sentence does not change while its problem lasts. Blocking."""

    def notes(self) -> list[str]:
        """Sentences about this database that need no action."""

    def storage_error(self) -> QueueError | None:
        """Why nothing can be stored at the moment, as of the last check; None while storing works. Does no I/O."""

    @property
    def disk_is_low(self) -> bool:
        """Whether the free disk space is below the floor, so that nothing is accepted, as of the last check. Does no I/O."""

    async def check_writable(self) -> None:
        """Commit something, unless this process has done so in the last 10 s. Raises as every write does."""


@dataclass(frozen=True, slots=True)
class Stores:
    """The four ports on one database. They are separate, so that each service gets only the port that it uses."""

    jobs: JobStore
    webhooks: WebhookStore
    tasks: TaskStore
    operations: OperatorStore
    metrics: MetricsStore
    database: Database
    location: Location


def open_stores(
    settings: Settings, clock: Callable[[], int] | None = None, lease_clock: Callable[[], int] | None = None
) -> Stores:
    """The ports of the database that `settings.database` names. They work after `Stores.database.open`.

    `clock` (milliseconds since 1970) and `lease_clock` (milliseconds since boot) replace the system clocks in tests.
    Raises `SettingsError` for a database of an unsupported kind.
    """
    location = locate(settings.database)
    store = _STORES[_scheme_of(settings.database)](settings, clock, lease_clock)
    return Stores(store, store.webhooks, store.tasks, store.operations, store.metrics, store, location)


@dataclass(frozen=True, slots=True)
class ReadOnlyStores:
    """The ports on a database that is only read. Methods that change something raise `StoreError`."""

    jobs: CommonJobStore
    webhooks: WebhookStore
    tasks: TaskStore
    operations: OperatorStore
    metrics: MetricsStore
    location: Location


@asynccontextmanager
async def open_for_reading(settings: Settings, clock: Callable[[], int] | None = None) -> AsyncIterator[ReadOnlyStores]:
    """The ports for reading the database that `settings.database` names, whether or not a service runs on it.

    Changes and creates nothing, and delays no process that runs. `clock` (milliseconds since 1970) replaces that of the system
    in tests. Raises `StoreError` with the reason if the database cannot be read, for instance because its schema is of another
    release, and `SettingsError` for a database of an unsupported kind.
    """
    location = locate(settings.database)
    store = ReadOnlySQLiteStore(settings, clock)
    await store.open()
    yield ReadOnlyStores(store, store.webhooks, store.tasks, store.operations, store.metrics, location)


def administer(database: str) -> DatabaseAdministration:
    """The administration of the database that the option `database` names.

    Raises `StoreError` if there is none, and `SettingsError` for an unsupported kind.
    """
    return _ADMINISTRATIONS[_scheme_of(database)](database)


def locate(database: str) -> Location:
    """The location of the database that the option `database` names. Raises `SettingsError` for an unsupported kind."""
    _scheme_of(database)
    path = database_path(database)
    return Location(str(path), path)


def _scheme_of(database: str) -> str:
    scheme, separator, _ = database.partition("://")
    if separator and scheme not in _STORES:
        raise SettingsError(f"database: the scheme {scheme}:// is not supported; write {_SUPPORTED}")
    return scheme if separator else ""
