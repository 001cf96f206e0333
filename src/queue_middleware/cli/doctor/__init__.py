"""`queue-middleware doctor`: looks for what is wrong with a queue, and for what to do about it.

May import: what `cli` may import.
Begin with `_findings`; the database itself is examined in its store (`DatabaseAdministration.examine`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from queue_middleware.cli.exit_codes import Exit
from queue_middleware.cli.flags import set_command
from queue_middleware.cli.opening import settings_of
from queue_middleware.cli.output import Terminal
from queue_middleware.errors import QueueError, SettingsError
from queue_middleware.jobs.struct import Struct
from queue_middleware.settings import Settings
from queue_middleware.stores import administer, locate
from queue_middleware.stores.administration import Finding, Level

from .application import Application, examine_paths, load_application
from .options import examine_options


class Row(Struct, frozen=True):
    """Something that was looked at."""

    level: Level
    text: str
    action: str | None
    """What to do about it."""


class Report(Struct, frozen=True):
    """What was found."""

    problems: int
    warnings: int
    findings: list[Row]


OUTPUTS: dict[str, Any] = {"doctor": Report}
_SIGNS = {Level.OK: "ok", Level.WARNING: "!!", Level.PROBLEM: "XX"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.description = (
        "Look for what is wrong with the database, its files, the options and the application, and print what to do about it. "
        "Exit status 1 if there is a problem."
    )
    set_command(parser, _doctor)
    parser.add_argument("--fix-permissions", action="store_true", help="first close the files to other users")
    parser.add_argument(
        "--app",
        metavar="MODULE:NAME",
        help="the served application, e.g. main:app: look at its options and routes too. It is imported, and not started",
    )


def _doctor(chosen: argparse.Namespace, terminal: Terminal) -> Exit:
    findings = list(_findings(chosen, terminal))
    problems, warnings = (sum(one.level is level for one in findings) for level in (Level.PROBLEM, Level.WARNING))
    if terminal.json:
        terminal.print_json(Report(problems, warnings, [Row(one.level, one.text, one.action) for one in findings]))
    else:
        for one in findings:
            terminal.print(f"{_SIGNS[one.level]:2}  {one.text}")
            if one.action is not None:
                terminal.print(f"    -> {one.action}")
        terminal.note(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}")
    return Exit.REFUSED if problems else Exit.DONE


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _findings(chosen: argparse.Namespace, terminal: Terminal) -> Iterator[Finding]:
    try:
        settings = settings_of(chosen)
        application = None if chosen.app is None else load_application(chosen.app)
    except SettingsError as error:
        yield Finding(Level.PROBLEM, error.detail, "correct the option: the service does not start with it")
        return
    if application is not None:
        settings = (
            application.settings if chosen.database is None else replace(application.settings, database=settings.database)
        )
    yield from _examine_database(settings, terminal, fixes=chosen.fix_permissions)
    yield from examine_options(settings, terminal.clock, identifies_clients=_identifies(settings, application))
    yield from examine_paths(settings, application)


def _identifies(settings: Settings, application: Application | None) -> bool:
    return bool(settings.api_keys) if application is None else application.identifies_clients


def _examine_database(settings: Settings, terminal: Terminal, *, fixes: bool) -> Iterator[Finding]:
    try:
        if not locate(settings.database).exists():
            text = f"there is no database {locate(settings.database).name} yet; the service creates it when it starts"
            yield Finding(Level.WARNING, text, "if there should be one, name it with --database or QUEUE_DATABASE")
            return
        database = administer(settings.database)
        if fixes:
            for file in database.fix_permissions():
                yield Finding(Level.OK, f"{file} is closed to other users now")
        yield from database.examine(settings, round(terminal.clock() * 1000))
    except QueueError as error:
        yield Finding(Level.PROBLEM, error.detail)
