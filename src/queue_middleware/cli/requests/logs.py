"""`queue-middleware requests logs`."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Mapping

from queue_middleware.cli.exit_codes import NotUnderstood
from queue_middleware.cli.flags import Actions, add_action, past
from queue_middleware.cli.opening import reading
from queue_middleware.cli.output import Terminal, printable, timestamp
from queue_middleware.jobs.log_lines import LogLevel, LogLine, read_level
from queue_middleware.jobs.states import FINAL
from queue_middleware.jobs.struct import Struct
from queue_middleware.stores import ReadOnlyStores

_INTERVAL = 0.5
"""Seconds between two reads with `--follow`."""
_SEVERITY = {
    LogLevel.DEBUG: 0,
    LogLevel.STDOUT: 1,
    LogLevel.INFO: 1,
    LogLevel.STDERR: 2,
    LogLevel.WARN: 2,
    LogLevel.ERROR: 3,
}


class LogRow(Struct, frozen=True):
    """One log line."""

    number: int
    at: str
    level: LogLevel
    message: str
    labels: Mapping[str, str] | None
    """Only with `--reveal`."""


def add_action_to(actions: Actions[argparse.ArgumentParser]) -> None:
    """Add `logs`."""
    parser = add_action(actions, "logs", "the log of a request", _logs)
    parser.add_argument("id", metavar="ID", help="the request")
    parser.add_argument("--follow", action="store_true", help="print new lines until the request has ended")
    parser.add_argument("--level", type=_level, default=LogLevel.DEBUG, metavar="L", help="only lines as serious as this: WARN")
    parser.add_argument("--since", type=past, metavar="TIME", help="only lines of this time or later: 10m")
    parser.add_argument("--reveal", action="store_true", help="with --json: the labels too")


def _logs(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Print the log lines of a request, without their labels, into which an application may put anything."""
    if chosen.follow and terminal.json:
        raise NotUnderstood("--json prints one document, which --follow would never complete")
    asyncio.run(_print(chosen, terminal))


async def _print(chosen: argparse.Namespace, terminal: Terminal) -> None:
    since = 0 if chosen.since is None else round(chosen.since.at(terminal.clock()).timestamp() * 1_000_000)
    rows = []
    async with reading(chosen) as stores:
        async for line in _lines(stores, chosen.id, follow=chosen.follow):
            if line.at < since or _SEVERITY[line.level] < _SEVERITY[chosen.level]:
                continue
            if terminal.json:
                rows.append(log_row(line, reveal=chosen.reveal))
            else:
                print_line(line, terminal)
    if terminal.json:
        terminal.print_json(rows)


async def _lines(stores: ReadOnlyStores, request_id: str, *, follow: bool) -> AsyncIterator[LogLine]:
    last = 0
    while True:
        # The state is read before the lines: the log is complete once a read has shown that the request has ended.
        job = await stores.jobs.job(request_id)
        for line in await stores.jobs.logs(job.key, last):
            last = line.number
            yield line
        if not follow or job.state in FINAL:
            return
        await asyncio.sleep(_INTERVAL)


def log_row(line: LogLine, *, reveal: bool) -> LogRow:
    """One line for JSON."""
    return LogRow(line.number, timestamp(line.at // 1000), line.level, line.message, line.labels if reveal else None)


def print_line(line: LogLine, terminal: Terminal) -> None:
    """Print one log line; a message of several lines is indented."""
    first, *rest = line.message.splitlines() or [""]
    terminal.print(f"{timestamp(line.at // 1000)}  {line.level:6}  {printable(first)}".rstrip())
    for text in rest:
        terminal.print(f"    {printable(text)}".rstrip())
    terminal.flush()


def _level(text: str) -> LogLevel:
    try:
        return read_level(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
