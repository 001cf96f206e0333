"""`queue-middleware database`: what the database contains, whether it is intact, its backup, its space and its schema."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from queue_middleware.errors import MaintenanceRefused
from queue_middleware.jobs.struct import Struct
from queue_middleware.settings import Settings
from queue_middleware.stores import administer, locate
from queue_middleware.stores.administration import DatabaseAdministration, DatabaseInfo, Progress
from queue_middleware.webhooks.signing.keyfile import path_of_keys

from .exit_codes import CommandError, Exit
from .flags import add_action, add_actions
from .opening import existing, settings_of
from .output import Terminal, duration, size, timestamp


class Info(Struct, frozen=True):
    """What a database is and contains. Sizes are bytes, times are RFC 3339."""

    database: str
    bytes: int
    log_bytes: int
    """Of the write-ahead log."""
    page_bytes: int
    pages: int
    free_pages: int
    schema_version: int
    known_schema_version: int
    """The schema version of this release."""
    application: str | None
    created_at: str | None
    requests: dict[str, int]
    """How many are stored, by state."""
    oldest_request_at: str | None
    oldest_unfinished_at: str | None
    journal_mode: str
    synchronous: str
    processes: int
    """How many processes have the database open as a queue."""


class Check(Struct, frozen=True):
    """What a check found."""

    database: str
    problems: list[str]


class BackupDone(Struct, frozen=True):
    """A backup that was made."""

    database: str
    """The copy of the database."""
    bytes: int
    files: list[str]
    """All files that belong to the backup."""
    not_included: list[str]
    """What else the service needs and the backup does not contain."""


class Compacted(Struct, frozen=True):
    """Sizes of a database before and after."""

    database: str
    bytes_before: int
    bytes_after: int


class Migrated(Struct, frozen=True):
    """Schema versions of a database before and after."""

    database: str
    version_before: int
    version_after: int


OUTPUTS: dict[str, Any] = {
    "database info": Info,
    "database check": Check,
    "database backup": BackupDone,
    "database compact": Compacted,
    "database migrate": Migrated,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = add_actions(parser)
    add_action(actions, "info", "what it is and how much it contains", _info)
    add_action(actions, "check", "whether the file and its content are intact", _check)
    backup = add_action(actions, "backup", "copy it while the service runs", _backup)
    backup.add_argument("path", metavar="PATH", type=Path, help="the file to create, or a folder")
    add_action(actions, "compact", "return its free space to the file system", _compact)
    migrate = add_action(actions, "migrate", "upgrade its schema to this release", _migrate)
    migrate.add_argument(
        "--yes", action="store_true", help="although processes run; those of an older release store nothing more"
    )


def _info(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Print what the database is: its size, its schema, and how many requests it contains."""
    _, database = _open(chosen)
    info = database.info()
    if terminal.json:
        terminal.print_json(_document(info))
        return
    for name, value in _lines(info, terminal):
        terminal.print(f"{name:20}{value}")


def _document(info: DatabaseInfo) -> Info:
    def time(at: int | None) -> str | None:
        return None if at is None else timestamp(at)

    return Info(
        database=info.path,
        bytes=info.size,
        log_bytes=info.log_size,
        page_bytes=info.page_size,
        pages=info.pages,
        free_pages=info.free_pages,
        schema_version=info.schema_version,
        known_schema_version=info.known_schema_version,
        application=info.application,
        created_at=time(info.created_at),
        requests=info.requests,
        oldest_request_at=time(info.oldest_request_at),
        oldest_unfinished_at=time(info.oldest_unfinished_at),
        journal_mode=info.journal_mode,
        synchronous=info.synchronous,
        processes=info.processes,
    )


def _lines(info: DatabaseInfo, terminal: Terminal) -> list[tuple[str, str]]:
    version = f"version {info.schema_version}"
    if info.schema_version != info.known_schema_version:
        version += f"; this release has version {info.known_schema_version}"
    free = f"{size(info.free_pages * info.page_size)} of it free"
    return [
        ("database", info.path),
        ("size", f"{size(info.size)}, {free}"),
        ("write-ahead log", size(info.log_size)),
        ("schema", version),
        ("application", info.application or "-"),
        ("created", terminal.since(info.created_at)),
        ("processes", str(info.processes)),
        ("requests", ", ".join(f"{count:,} {state}" for state, count in sorted(info.requests.items())) or "none"),
        ("oldest request", terminal.since(info.oldest_request_at)),
        ("oldest unfinished", terminal.since(info.oldest_unfinished_at)),
        ("settings", f"journal_mode={info.journal_mode}, synchronous={info.synchronous}, page_size={info.page_size}"),
    ]


def _check(chosen: argparse.Namespace, terminal: Terminal) -> Exit:
    """Check the pages, the indexes and the content of the database. The service may run. Exit status 1 if anything is wrong."""
    settings, database = _open(chosen)
    path, problems = locate(settings.database).name, database.check()
    if terminal.json:
        terminal.print_json(Check(path, problems))
    else:
        for problem in problems or (f"{path} is intact",):
            terminal.print(problem)
    return Exit.REFUSED if problems else Exit.DONE


def _backup(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Copy the database of this moment, and the keys beside it. The service may run, and does not wait for the backup."""
    settings, database = _open(chosen)
    target = chosen.path.expanduser().absolute()
    if target.is_dir():
        target /= Path(locate(settings.database).name).name
    made = database.back_up(target, _progress(terminal))
    missing = _not_included(settings)
    if terminal.json:
        files = [str(file) for file in made.files]
        terminal.print_json(BackupDone(str(made.database), made.size, files, missing))
    else:
        for file in made.files:
            terminal.print(f"{file}  {size(file.stat().st_size)}")
        for sentence in missing:
            terminal.note(sentence)


def _progress(terminal: Terminal) -> Progress | None:
    """Shows how much is copied, on a terminal only."""
    if terminal.json or not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        print(f"\r{size(done)} of {size(total)}", end="\r" if done < total else "\n", file=sys.stderr, flush=True)

    return show


def _not_included(settings: Settings) -> list[str]:
    """Sentences about secrets that are not beside the database."""
    sentences = []
    location = locate(settings.database)
    if settings.signing_key is not None:
        path = path_of_keys(settings.signing_key, location.secrets)
        where = str(path) if settings.signing_key.startswith("/") else "QUEUE_SIGNING_KEY"
        sentences.append(f"the keys that sign webhooks are in {where} and not in the backup")
    if settings.callback_secret:
        sentences.append("the secret of callback URLs is in QUEUE_CALLBACK_SECRET and not in the backup")
    return sentences


def _compact(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Return the free space of the file to the file system. No process may have the database open.

    Needs free disk space for two copies of the content.
    """
    settings, database = _open(chosen)
    started = terminal.clock()
    done = database.compact()
    path = locate(settings.database).name
    if terminal.json:
        terminal.print_json(Compacted(path, done.before, done.after))
    else:
        took = duration(terminal.clock() - started)
        terminal.print(f"{path}: {size(done.before)} before, {size(done.after)} now, in {took}")


def _migrate(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Upgrade the schema to this release, as the first process that starts does. Make a backup first: there is no way back."""
    settings, database = _open(chosen)
    try:
        done = database.migrate(while_running=chosen.yes)
    except MaintenanceRefused as error:
        raise CommandError(
            f"{error.detail}, or add --yes: processes of an older release then store nothing more until they are restarted"
        ) from error
    path = locate(settings.database).name
    if terminal.json:
        terminal.print_json(Migrated(path, done.before, done.after))
    elif done.before == done.after:
        terminal.print(f"{path} has schema version {done.after} already")
    else:
        terminal.print(f"{path}: schema version {done.before} before, {done.after} now")


def _open(chosen: argparse.Namespace) -> tuple[Settings, DatabaseAdministration]:
    settings = settings_of(chosen)
    existing(settings)
    return settings, administer(settings.database)
