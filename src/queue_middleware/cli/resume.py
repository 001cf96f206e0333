"""`queue-middleware resume`: end a pause."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from queue_middleware.jobs.pauses import Pause
from queue_middleware.runtime.control import QueueControl

from .exit_codes import NothingMatched
from .flags import add_operator, operator_of, set_command
from .opening import acting, counting
from .output import Terminal
from .pause import Pauses, print_pauses

OUTPUTS: dict[str, Any] = {"resume": Pauses}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `resume`."""
    set_command(parser, _resume)
    parser.description = _resume.__doc__
    parser.add_argument("--route", metavar="R", help="end the pause of this route; default: the pause of all routes")
    add_operator(parser)


def _resume(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """End the pause of all routes, or with `--route` that of one route. Prints the pauses that still hold.

    The pause of all routes and the pause of one route are separate: a request starts when neither holds.
    """
    print_pauses(asyncio.run(_end(chosen, terminal)), terminal)


async def _end(chosen: argparse.Namespace, terminal: Terminal) -> list[Pause]:
    async with acting(chosen) as stores, counting(chosen, stores) as counts:
        control = QueueControl(stores.operations, counts.emit, terminal.clock)
        resumed = await control.resume(chosen.route, operator_of(chosen))
        pauses = await control.pauses()
    if resumed:
        return pauses
    what = "the pause of all routes does not hold" if chosen.route is None else f"the route {chosen.route} is not paused"
    names = ", ".join(one.route for one in pauses)
    raise NothingMatched(f"{what}; paused: {names}" if names else f"{what}; nothing is paused")
