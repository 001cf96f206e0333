"""Implementations of the three storage ports, one package each; `open_stores` picks one by the scheme of `database`.

May import: `tasks`, `webhooks`, `events`, `jobs` and what lies below them; never `worker`, its sibling.
Begin with `open_stores`, then `common.job_store` and `sqlite.store`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from queue_middleware.errors import QueueError, SettingsError
from queue_middleware.jobs.store import JobStore
from queue_middleware.settings import Settings
from queue_middleware.tasks.store import TaskStore
from queue_middleware.webhooks.store import WebhookStore

from .sqlite import SQLiteStore, database_path

_SUPPORTED = "a path or sqlite:///path"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a database is, without opening it."""

    name: str
    """How messages name it. It holds no password."""
    secrets: Path
    """Path prefix of the generated secrets: `<secrets>.key` holds the signing keys, `<secrets>.secret` the callback secret."""

    def exists(self) -> bool:
        """Whether there is a database. Blocking."""
        return self.secrets.exists()


class Database(Protocol):
    """One process's connection to the database behind the three ports."""

    @property
    def is_first(self) -> bool:
        """Whether no other process had the database open when this one opened it. The first one reports for all of them."""

    async def open(self) -> None:
        """Create or migrate the database, and start. Raises `StoreError` with the reason when it cannot be used."""

    async def close(self) -> None:
        """Finish pending writes, hand back what this owner still runs or sends, then release everything. Repeatable."""

    def detach_after_fork(self) -> None:
        """In a forked child: release what belongs to the parent without affecting the parent."""

    def warnings(self) -> list[str]:
        """What the operator should know at the moment, as sentences that stay the same while they apply. Blocking."""

    def notes(self) -> list[str]:
        """Facts about this database that need no action, as sentences."""

    def storage_error(self) -> QueueError | None:
        """Why nothing can be stored at the moment, as of the last check; None while storing works. Does no I/O."""


@dataclass(frozen=True, slots=True)
class Stores:
    """The three ports on one database, so that each service gets only the one that it uses."""

    jobs: JobStore
    webhooks: WebhookStore
    tasks: TaskStore
    database: Database
    location: Location


def open_stores(
    settings: Settings, clock: Callable[[], int] | None = None, lease_clock: Callable[[], int] | None = None
) -> Stores:
    """The ports of the database that `settings.database` names; `Stores.database.open` connects them.

    `clock` (milliseconds since 1970) and `lease_clock` (milliseconds since boot) replace the system's in tests.
    Raises `SettingsError` for a database of an unsupported kind.
    """
    location = locate(settings.database)
    store = SQLiteStore(settings, clock, lease_clock)
    return Stores(store, store.webhooks, store.tasks, store, location)


def locate(database: str) -> Location:
    """Where the database is that the option `database` names. Raises `SettingsError` for one of an unsupported kind."""
    scheme, separator, _ = database.partition("://")
    if separator and scheme != "sqlite":
        raise SettingsError(f"database: the scheme {scheme}:// is not supported; write {_SUPPORTED}")
    path = database_path(database)
    return Location(str(path), path)
