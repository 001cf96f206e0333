"""`queue-middleware status`: the state of the whole queue at a glance."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from queue_middleware.jobs.counts import QueueCounts
from queue_middleware.jobs.models import JobState
from queue_middleware.jobs.outcomes import Outcome
from queue_middleware.jobs.pauses import ALL_ROUTES, Pause
from queue_middleware.jobs.processes import ProcessRecord
from queue_middleware.jobs.struct import Struct
from queue_middleware.stores import ReadOnlyStores
from queue_middleware.webhooks.admin import UNHEALTHY
from queue_middleware.webhooks.models import DeliveryState, FlowRecord, ReceiverHealth

from .exit_codes import NotUnderstood
from .flags import seconds, set_command
from .live import repeat
from .opening import reading
from .output import Terminal, plural, printable, timestamp
from .pause import PauseRow, pause_row
from .processes import ProcessRow, process_row
from .receivers import ReceiverRow, receiver_row
from .throughput import COLUMNS, Throughput, cells, read_throughput, recent_line

_INTERVAL = 2.0
_MOST_RECEIVERS = 3
_HEALTH = {ReceiverHealth.OPEN: "circuit open"}
"""The health in words; a host that 'is open' could be taken for a healthy one."""


class Status(Struct, frozen=True):
    """The state of a queue."""

    database: str
    at: str
    requests: Mapping[JobState, int]
    """How many are in each state; states without any are left out."""
    outcomes: Mapping[Outcome, int]
    """How the stored requests ended."""
    webhooks: Mapping[str, int]
    """How many are in each state, as in `webhooks list`."""
    processes: list[ProcessRow]
    pauses: list[PauseRow]
    receivers: list[ReceiverRow]
    """Those that are slow or failing, and those with an open circuit."""
    throughput: Throughput


OUTPUTS: dict[str, Any] = {"status": Status}


class _Snapshot(NamedTuple):
    """What was read at one time."""

    database: str
    counts: QueueCounts
    processes: list[ProcessRecord]
    pauses: list[Pause]
    receivers: list[FlowRecord]
    throughput: Throughput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    set_command(parser, _status)
    parser.description = _status.__doc__
    parser.add_argument("--route", metavar="R", help="only this route in the table of routes")
    parser.add_argument(
        "--watch", nargs="?", type=seconds, const=_INTERVAL, metavar="TIME", help="print it again and again: every 2s, or TIME"
    )


def _status(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Print the state of the queue: requests, processes, webhooks, pauses, receivers that are not healthy, and each route.

    What was done in the last minutes and hours needs the option `metrics`, which is on by default.
    """
    if chosen.watch is not None and terminal.json:
        raise NotUnderstood("--json prints one document, and --watch prints several")
    asyncio.run(_watch(chosen, terminal) if chosen.watch is not None else _print(chosen, terminal))


async def _print(chosen: argparse.Namespace, terminal: Terminal) -> None:
    snapshot = await _read(chosen, terminal)
    if terminal.json:
        terminal.print_json(_document(snapshot, terminal))
    else:
        terminal.print_block("\n".join(_lines(snapshot, terminal)))


async def _watch(chosen: argparse.Namespace, terminal: Terminal) -> None:
    async def text() -> str:
        return "\n".join(printable(line) for line in _lines(await _read(chosen, terminal), terminal))

    await repeat(text, chosen.watch)


async def _read(chosen: argparse.Namespace, terminal: Terminal) -> _Snapshot:
    async with reading(chosen) as stores:
        return _Snapshot(
            stores.location.name,
            await stores.jobs.counts(),
            await stores.operations.processes(),
            await stores.operations.pauses(),
            await stores.webhooks.receivers(UNHEALTHY),
            await _throughput(chosen, stores, terminal),
        )


async def _throughput(chosen: argparse.Namespace, stores: ReadOnlyStores, terminal: Terminal) -> Throughput:
    found = await read_throughput(stores.metrics, terminal.clock())
    return found.replace(routes=[one for one in found.routes if chosen.route in (None, one.route)])


def _document(snapshot: _Snapshot, terminal: Terminal) -> Status:
    counts = snapshot.counts
    return Status(
        database=snapshot.database,
        at=timestamp(round(terminal.clock() * 1000)),
        requests=counts.jobs,
        outcomes=counts.outcomes,
        webhooks=counts.deliveries,
        processes=[process_row(one) for one in snapshot.processes],
        pauses=[pause_row(one) for one in snapshot.pauses],
        receivers=[receiver_row(one) for one in snapshot.receivers],
        throughput=snapshot.throughput,
    )


# --- text


def _lines(snapshot: _Snapshot, terminal: Terminal) -> Iterator[str]:
    counts, processes = snapshot.counts, snapshot.processes
    yield f"{Path(snapshot.database).name}, {_processes(processes)}"
    slots = sum(one.concurrency for one in processes)
    running = f"{counts.jobs.get(JobState.RUNNING, 0):,}" + (f" of {slots:,}" if slots else "")
    others = [f"{state} {counts.jobs.get(state, 0):,}" for state in (JobState.DELAYED, JobState.AWAITING)]
    yield "   ".join([f"queued {counts.jobs.get(JobState.QUEUED, 0):,}", f"running {running}", *others])
    if counts.outcomes:
        yield "ended: " + ", ".join(f"{outcome} {count:,}" for outcome, count in counts.outcomes.items())
    if any(one.day.submitted or one.day.ended for one in snapshot.throughput.routes):  # otherwise nothing counts
        yield recent_line(snapshot.throughput.recent)
    if stuck := sum(one.stuck for one in processes):
        yield f"stuck: {plural(stuck, 'attempt')} ended, but the code still runs   (queue-middleware processes list)"
    pending = {state: counts.deliveries.get(state, 0) for state in (DeliveryState.PENDING, DeliveryState.DEAD)}
    if any(pending.values()):
        yield f"webhooks: {pending[DeliveryState.PENDING]:,} pending, {pending[DeliveryState.DEAD]:,} given up"
    for pause in snapshot.pauses:
        yield _pause(pause, terminal)
    yield from _receivers(snapshot.receivers, terminal)
    if snapshot.throughput.routes:
        yield from ("", *terminal.table(COLUMNS, [cells(one) for one in snapshot.throughput.routes]))


def _processes(processes: list[ProcessRecord]) -> str:
    if not processes:
        return "no process runs it"
    names = ", ".join(f"{one.host} {one.pid}" for one in processes)
    versions = ", ".join(sorted({one.version for one in processes}))
    count = "1 process" if len(processes) == 1 else f"{len(processes)} processes"
    return f"{count} ({names}), version {versions}"


def _pause(pause: Pause, terminal: Terminal) -> str:
    route = "all routes" if pause.route == ALL_ROUTES else pause.route
    end = "" if pause.paused_until is None else f", ends {terminal.since(pause.paused_until)}"
    reason = f": {pause.reason}" if pause.reason else ""
    return f"paused: {route}, {terminal.since(pause.paused_at)} by {pause.operator}{end}{reason}"


def _receivers(flows: list[FlowRecord], terminal: Terminal) -> Iterator[str]:
    for flow in flows[:_MOST_RECEIVERS]:
        probe = f", next probe {terminal.since(flow.open_until)}" if flow.health is ReceiverHealth.OPEN else ""
        health, pending = _HEALTH.get(flow.health, flow.health), plural(flow.pending, "webhook")
        yield f"receiver: {flow.host}: {health}{probe}, {pending} pending"
    if flows:
        more = f"{len(flows) - _MOST_RECEIVERS:,} more   " if len(flows) > _MOST_RECEIVERS else ""
        yield f"          {more}(queue-middleware receivers list)"
