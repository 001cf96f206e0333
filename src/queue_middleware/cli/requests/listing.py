"""`queue-middleware requests list`."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from queue_middleware.cli.exit_codes import Exit
from queue_middleware.cli.filters import add_filters, filter_of
from queue_middleware.cli.flags import Actions, add_action, count
from queue_middleware.cli.opening import reading
from queue_middleware.cli.output import Terminal
from queue_middleware.cli.rows import COLUMNS, RequestRow, cells, make_row
from queue_middleware.jobs.job_list import MAX_PAGE, JobFilter, JobPage, ListedJob, ListPosition
from queue_middleware.jobs.struct import Struct

_LIMIT = 50


class RequestList(Struct, frozen=True):
    """Requests, newest first."""

    requests: list[RequestRow]
    next: str | None
    """Pass it as `--after` for the next ones; None at the end."""


def add_action_to(actions: Actions[argparse.ArgumentParser]) -> None:
    """Add `list`."""
    parser = add_action(actions, "list", "requests, newest first", _list)
    add_filters(parser)
    parser.add_argument("--limit", type=count, default=_LIMIT, metavar="N", help=f"how many; default {_LIMIT}")
    parser.add_argument("--after", metavar="ID", help="continue behind this request")
    parser.add_argument("--ids", action="store_true", help="print only the ids")


def _list(chosen: argparse.Namespace, terminal: Terminal) -> int:
    """List requests, newest first. A list covers the newest 100,000 requests."""
    found, more = asyncio.run(_read(chosen, terminal))
    last = found[-1].job.request_id if more else None
    if terminal.json:
        terminal.print_json(RequestList([make_row(one) for one in found], last))
    elif chosen.ids:
        for one in found:
            terminal.print(one.job.request_id)
    elif found:
        terminal.print_table(COLUMNS, [cells(one, terminal) for one in found])
    else:
        terminal.note("no request matches")
    if last is not None and not terminal.json:
        terminal.note(f"there are more; for the next ones: --after {last}")
    return Exit.DONE if found else Exit.NOTHING_MATCHED


async def _read(chosen: argparse.Namespace, terminal: Terminal) -> tuple[list[ListedJob], bool]:
    """The requests to print, and whether there are more."""
    wanted = filter_of(chosen, terminal)
    async with reading(chosen) as stores:
        after = None if chosen.after is None else ListPosition((await stores.jobs.job(chosen.after)).key, 0)
        found: list[ListedJob] = []
        async for one in all_jobs(stores.jobs, wanted, after, chosen.limit + 1):
            found.append(one)
            if len(found) > chosen.limit:
                return found[:-1], True
        return found, False


class JobPages(Protocol):
    """What a list needs of a `JobStore`."""

    async def page(self, wanted: JobFilter, after: ListPosition | None = None, limit: int = 100) -> JobPage:
        """A page of jobs."""


async def all_jobs(
    jobs: JobPages, wanted: JobFilter, after: ListPosition | None = None, page: int = MAX_PAGE
) -> AsyncIterator[ListedJob]:
    """All requests that `wanted` selects, newest first, read in pages of at most `page`."""
    while True:
        found = await jobs.page(wanted, after, min(page, MAX_PAGE))
        for one in found.jobs:
            yield one
        if found.next is None:
            return
        after = found.next
