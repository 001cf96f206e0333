"""`queue-middleware pause`: hold the starts of requests."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from queue_middleware.jobs.pauses import ALL_ROUTES, Pause
from queue_middleware.jobs.struct import Struct
from queue_middleware.runtime.control import QueueControl

from .exit_codes import NotUnderstood
from .flags import add_operator, future, operator_of, set_command
from .opening import acting, counting, reading
from .output import Terminal
from .rows import time_or_none


class PauseRow(Struct, frozen=True):
    """One pause."""

    route: str
    """`*` for all routes."""
    operator: str
    reason: str
    paused_at: str | None
    paused_until: str | None
    """None: until it is resumed."""


class Pauses(Struct, frozen=True):
    """The pauses that hold now."""

    pauses: list[PauseRow]


OUTPUTS: dict[str, Any] = {"pause": Pauses}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pause`."""
    set_command(parser, _pause)
    parser.description = _pause.__doc__
    parser.add_argument(
        "--route", metavar="R", help="only this route, e.g. /items/{id}, with every method; default: all routes"
    )
    parser.add_argument("--reason", metavar="TEXT", default="", help="it is shown to other operators")
    parser.add_argument("--until", type=future, metavar="TIME", help="resume by itself: 30m, or 2027-01-15T08:00:00Z")
    parser.add_argument("--list", action="store_true", help="only print the pauses that hold now")
    add_operator(parser)


def _pause(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Hold the starts of requests, in every process and over restarts, until `resume`. Prints the pauses that hold then.

    Requests are accepted as before and keep their positions; those that run go on.
    """
    if chosen.list and (chosen.route or chosen.reason or chosen.until):
        raise NotUnderstood("--list takes no other arguments")
    pauses = asyncio.run(_read(chosen) if chosen.list else _hold(chosen, terminal))
    print_pauses(pauses, terminal)


async def _hold(chosen: argparse.Namespace, terminal: Terminal) -> list[Pause]:
    async with acting(chosen) as stores, counting(chosen, stores) as counts:
        control = QueueControl(stores.operations, counts.emit, terminal.clock)
        until = None if chosen.until is None else chosen.until.at(terminal.clock())
        await control.pause(chosen.route, chosen.reason, until, operator_of(chosen))
        if chosen.route is not None and chosen.route not in await stores.jobs.routes():
            terminal.note(f"no stored request has the route {chosen.route}; 'requests list' shows the routes")
        return await control.pauses()


async def _read(chosen: argparse.Namespace) -> list[Pause]:
    async with reading(chosen) as stores:
        return await stores.operations.pauses()


def print_pauses(pauses: list[Pause], terminal: Terminal) -> None:
    """Print the pauses that hold now."""
    if terminal.json:
        terminal.print_json(Pauses([pause_row(one) for one in pauses]))
    elif pauses:
        terminal.print_table(("PAUSED ROUTE", "SINCE", "UNTIL", "BY", "REASON"), [_cells(one, terminal) for one in pauses])
    else:
        terminal.note("nothing is paused")


def pause_row(pause: Pause) -> PauseRow:
    """The pause for JSON."""
    return PauseRow(pause.route, pause.operator, pause.reason, time_or_none(pause.paused_at), time_or_none(pause.paused_until))


def _cells(pause: Pause, terminal: Terminal) -> tuple[str, ...]:
    until = "resumed" if pause.paused_until is None else terminal.since(pause.paused_until)
    route = "all routes" if pause.route == ALL_ROUTES else pause.route
    return route, terminal.since(pause.paused_at), until, pause.operator, pause.reason or "-"
