"""`queue-middleware receivers`: the health of the receivers of webhooks, and probes of those that fail."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from queue_middleware.jobs.models import identity_of
from queue_middleware.jobs.struct import Struct
from queue_middleware.webhooks.admin import UNHEALTHY, WebhookAdmin
from queue_middleware.webhooks.models import FlowRecord, ReceiverHealth

from .exit_codes import Exit, NothingMatched
from .flags import add_action, add_actions, add_operator, operator_of
from .opening import acting, counting, reading
from .output import Terminal, plural
from .rows import time_or_none

_MOST_PENDING = 1000
"""Webhooks of one submitter are counted up to this number."""


class ReceiverRow(Struct, frozen=True):
    """The webhooks of one submitter to one host."""

    host: str
    submitter: str
    """`id:` and the identity of the client that submitted the requests, otherwise its network address."""
    health: ReceiverHealth
    """`open`: the circuit is open, so that only probes are sent."""
    failures: int
    """In a row."""
    failing_since: str | None
    open_until: str | None
    """When the next probe may be sent; only if `open`."""
    pending: int
    """Webhooks that are not sent yet; counted up to 1,000."""


class Probes(Struct, frozen=True):
    """The probes that are sent now."""

    host: str
    probes: int


OUTPUTS: dict[str, Any] = {"receivers list": list[ReceiverRow], "receivers probe": Probes}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all actions."""
    actions = add_actions(parser)
    listing = add_action(actions, "list", "receivers that are slow or failing", _list)
    listing.add_argument("--all", action="store_true", help="those that are healthy or new too")
    probe = add_action(actions, "probe", "send a webhook now to a receiver whose circuit is open", _probe)
    probe.add_argument("host", metavar="HOST", help="the receiver, e.g. hooks.example.com")
    add_operator(probe)


def _list(chosen: argparse.Namespace, terminal: Terminal) -> int:
    """List receivers and their health, at most 1,000: those that are slow or failing, and those with an open circuit.

    Each row has the webhooks of one submitter to one host.
    """
    found = asyncio.run(_read(chosen))
    if terminal.json:
        terminal.print_json([receiver_row(one) for one in found])
    elif found:
        terminal.print_table(
            ("HOST", "SUBMITTER", "HEALTH", ">FAILURES", "FAILING SINCE", "NEXT PROBE", ">PENDING"),
            [_cells(one, terminal) for one in found],
        )
    else:
        terminal.note("no receiver is slow or failing" if not chosen.all else "there are no receivers")
    return Exit.DONE if found or not chosen.all else Exit.NOTHING_MATCHED


async def _read(chosen: argparse.Namespace) -> list[FlowRecord]:
    async with reading(chosen) as stores:
        return await stores.webhooks.receivers(list(ReceiverHealth) if chosen.all else UNHEALTHY)


def receiver_row(flow: FlowRecord) -> ReceiverRow:
    """The receiver for JSON."""
    return ReceiverRow(
        flow.host,
        flow.submitter,
        flow.health,
        flow.failures,
        time_or_none(flow.failing_since),
        time_or_none(flow.open_until),
        flow.pending,
    )


def _cells(flow: FlowRecord, terminal: Terminal) -> tuple[str, ...]:
    pending = f"{flow.pending:,}" if flow.pending < _MOST_PENDING else f"{_MOST_PENDING:,} or more"
    return (
        flow.host,
        identity_of(flow.submitter) or flow.submitter,
        flow.health,
        str(flow.failures),
        terminal.since(flow.failing_since),
        terminal.since(flow.open_until),
        pending,
    )


def _probe(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Send a webhook now for each open circuit of a receiver, whatever its schedule.

    If the receiver accepts it, the circuit closes and the other webhooks follow. A running service sends it.
    """
    document = asyncio.run(_send(chosen))
    if terminal.json:
        terminal.print_json(document)
    else:
        terminal.print(f"{plural(document.probes, 'webhook')} will be sent now")


async def _send(chosen: argparse.Namespace) -> Probes:
    async with acting(chosen) as stores, counting(chosen, stores) as counts:
        admin = WebhookAdmin(stores.webhooks, counts.emit)
        probes = await admin.probe(chosen.host, operator_of(chosen))
    if not probes:
        raise NothingMatched(f"no circuit of {chosen.host} is open, or it has no pending webhooks")
    return Probes(chosen.host, probes)
