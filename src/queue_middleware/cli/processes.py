"""`queue-middleware processes`: the processes that run the queue."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from queue_middleware.jobs.processes import ProcessRecord
from queue_middleware.jobs.struct import Struct

from .exit_codes import Exit
from .flags import add_action, add_actions
from .opening import reading
from .output import Terminal, timestamp


class ProcessRow(Struct, frozen=True):
    """One process."""

    owner: str
    """A random name, new for each start; `requests show` prints it as `process`."""
    host: str
    pid: int
    version: str
    """Of this package."""
    slots: int
    running: int
    """Occupied slots."""
    stuck: int
    """Attempts that were ended and whose code still runs."""
    streams: int
    """Open status streams."""
    started_at: str
    seen_at: str
    """When it last reported."""


OUTPUTS: dict[str, Any] = {"processes list": list[ProcessRow]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all actions."""
    add_action(add_actions(parser), "list", "the processes that run the queue", _list)


def _list(chosen: argparse.Namespace, terminal: Terminal) -> int:
    """List the processes that run the queue now, the oldest first."""
    found = asyncio.run(_read(chosen))
    if terminal.json:
        terminal.print_json([process_row(one) for one in found])
    elif found:
        terminal.print_table(
            ("PROCESS", "HOST", ">PID", "VERSION", ">RUNNING", ">STUCK", ">STREAMS", "STARTED", "REPORTED"),
            [_cells(one, terminal) for one in found],
        )
    else:
        terminal.note("no process runs the queue")
    return Exit.DONE if found else Exit.NOTHING_MATCHED


async def _read(chosen: argparse.Namespace) -> list[ProcessRecord]:
    async with reading(chosen) as stores:
        return await stores.operations.processes()


def process_row(process: ProcessRecord) -> ProcessRow:
    """The process for JSON."""
    return ProcessRow(
        process.owner,
        process.host,
        process.pid,
        process.version,
        process.concurrency,
        process.running,
        process.stuck,
        process.streams,
        timestamp(process.started_at),
        timestamp(process.seen_at),
    )


def _cells(process: ProcessRecord, terminal: Terminal) -> tuple[str, ...]:
    return (
        process.owner,
        process.host,
        str(process.pid),
        process.version,
        f"{process.running} of {process.concurrency}",
        str(process.stuck),
        str(process.streams),
        terminal.since(process.started_at),
        terminal.since(process.seen_at),
    )
