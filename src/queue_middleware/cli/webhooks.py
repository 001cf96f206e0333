"""`queue-middleware webhooks`: list and inspect webhooks, and deliver them again."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from queue_middleware.errors import BadRequest
from queue_middleware.jobs.models import WebhookKind
from queue_middleware.jobs.struct import Struct
from queue_middleware.webhooks.admin import WebhookAdmin, make_filter, target_of
from queue_middleware.webhooks.models import DeliveryAttempt, DeliveryFilter, DeliveryRecord, DeliveryState

from .approval import add_approval, approve
from .exit_codes import Exit, NotUnderstood
from .flags import Actions, Moment, add_action, add_actions, add_operator, count, operator_of, past
from .opening import acting, counting, reading
from .output import Terminal, duration, plural, timestamp

_LIMIT = 50
_ENDED = frozenset({DeliveryState.DELIVERED, DeliveryState.SUPERSEDED, DeliveryState.DEAD})


class WebhookRow(Struct, frozen=True):
    """One webhook."""

    id: int
    request_id: str
    kind: WebhookKind
    """What it reports; `completed` is the end of the request, however it ended."""
    host: str
    """The URL is not printed: it may contain a key."""
    state: DeliveryState
    attempts: int
    since: str
    """When it was first due, or was redelivered."""
    due_at: str | None
    """When the next attempt is due; None when it has ended."""
    ended_at: str | None


class WebhookList(Struct, frozen=True):
    """Webhooks, oldest first."""

    webhooks: list[WebhookRow]
    next: int | None
    """Pass it as `--after` for the next ones; None at the end."""


class AttemptRow(Struct, frozen=True):
    """One attempt to deliver a webhook."""

    at: str
    seconds: float
    status: int | None
    """HTTP status of the response; None without a response."""
    error: str | None
    response: str | None
    """The start of the response body, at most 1 KiB. Only with `--reveal`."""


class WebhookDetail(Struct, frozen=True):
    """One webhook with its attempts."""

    webhook: WebhookRow
    attempts: list[AttemptRow]


class Redelivery(Struct, frozen=True):
    """What was delivered again."""

    selected: int
    redelivered: int
    """0 with `--dry-run`. Webhooks that are being sent are left out."""


OUTPUTS: dict[str, Any] = {
    "webhooks list": WebhookList,
    "webhooks show": WebhookDetail,
    "webhooks redeliver": Redelivery,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all actions."""
    actions = add_actions(parser)
    listing = add_action(actions, "list", "webhooks, oldest first", _list)
    _add_selection(listing)
    listing.add_argument("--limit", type=count, default=_LIMIT, metavar="N", help=f"how many; default {_LIMIT}")
    listing.add_argument("--after", type=count, default=0, metavar="ID", help="continue behind this webhook")
    listing.add_argument("--ids", action="store_true", help="print only the ids")
    show = add_action(actions, "show", "one webhook with its attempts", _show)
    show.add_argument("id", type=count, metavar="ID", help="the webhook")
    show.add_argument("--reveal", action="store_true", help="the beginning of each response too")
    _add_redeliver(actions)


def _add_redeliver(actions: Actions[argparse.ArgumentParser]) -> None:
    parser = add_action(actions, "redeliver", "deliver webhooks again", _redeliver)
    parser.add_argument("ids", nargs="*", type=count, metavar="ID", help="these webhooks, in any state")
    _add_selection(parser)
    add_approval(parser)
    add_operator(parser)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("selection")
    group.add_argument("--dead", action="store_true", help="only webhooks that were given up")
    group.add_argument("--host", metavar="H", help="the receiver, e.g. hooks.example.com")
    group.add_argument("--request", metavar="ID", help="the webhooks of one request")
    group.add_argument(
        "--since", type=past, metavar="TIME", help="first due at this time or later: 2h, or 2027-01-15T08:00:00Z"
    )
    group.add_argument("--until", type=past, metavar="TIME", help="first due before this time")


def _filter(chosen: argparse.Namespace, terminal: Terminal) -> DeliveryFilter:
    def at(moment: Moment | None) -> datetime | None:
        return None if moment is None else moment.at(terminal.clock())

    return make_filter(
        request_id=chosen.request,
        host=chosen.host,
        since=at(chosen.since),
        until=at(chosen.until),
        dead_only=True if chosen.dead else None,
    )


# --- reading


def _list(chosen: argparse.Namespace, terminal: Terminal) -> int:
    """List webhooks, oldest first."""
    found = asyncio.run(_read(chosen, terminal))
    shown, more = found[: chosen.limit], len(found) > chosen.limit
    last = shown[-1].id if more else None
    if terminal.json:
        terminal.print_json(WebhookList([_row(one) for one in shown], last))
    elif chosen.ids:
        for one in shown:
            terminal.print(str(one.id))
    elif shown:
        _print(shown, terminal)
    else:
        terminal.note("no webhook matches")
    if last is not None and not terminal.json:
        terminal.note(f"there are more; for the next ones: --after {last}")
    return Exit.DONE if shown else Exit.NOTHING_MATCHED


async def _read(chosen: argparse.Namespace, terminal: Terminal) -> list[DeliveryRecord]:
    async with reading(chosen) as stores:
        return await stores.webhooks.records(_filter(chosen, terminal), after=chosen.after, limit=chosen.limit + 1)


def _print(records: list[DeliveryRecord], terminal: Terminal) -> None:
    rows = [
        (
            str(one.id),
            one.request_id,
            one.kind,
            one.host,
            one.state,
            str(one.attempts),
            terminal.since(one.since),
            "-" if one.state in _ENDED else terminal.since(one.due_at),
        )
        for one in records
    ]
    terminal.print_table((">ID", "REQUEST", "KIND", "HOST", "STATE", ">ATTEMPTS", "SINCE", "DUE"), rows)


def _row(record: DeliveryRecord) -> WebhookRow:
    has_ended = record.state in _ENDED
    at = timestamp(record.due_at)
    return WebhookRow(
        record.id,
        record.request_id,
        record.kind,
        record.host,
        record.state,
        record.attempts,
        timestamp(record.since),
        None if has_ended else at,
        at if has_ended else None,
    )


def _show(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Show one webhook and its attempts."""
    record, attempts = asyncio.run(_read_one(chosen))
    rows = [_attempt_row(one, reveal=chosen.reveal) for one in attempts]
    if terminal.json:
        terminal.print_json(WebhookDetail(_row(record), rows))
        return
    _print([record], terminal)
    if not rows:
        return
    terminal.print()
    terminal.print_table(
        ("ATTEMPT", ">TOOK", ">STATUS", "ERROR"),
        [(terminal.since(one.at), duration(one.duration), str(one.status or "-"), one.error or "-") for one in attempts],
    )
    for row in rows:
        if row.response:
            terminal.print_block(row.response)


async def _read_one(chosen: argparse.Namespace) -> tuple[DeliveryRecord, list[DeliveryAttempt]]:
    async with reading(chosen) as stores:
        (record,) = await stores.webhooks.records(make_filter(delivery_id=chosen.id), limit=1)
        return record, await stores.webhooks.attempts(chosen.id)


def _attempt_row(attempt: DeliveryAttempt, *, reveal: bool) -> AttemptRow:
    body = attempt.response_body.decode(errors="replace") if reveal else None
    return AttemptRow(timestamp(attempt.at), attempt.duration, attempt.status, attempt.error, body)


# --- acting


def _redeliver(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Deliver webhooks again: those that are named or selected. Each starts its schedule anew, under the same id.

    Without an ID and `--request`, only webhooks that were given up are selected.
    """
    criteria = _filter(chosen, terminal)
    if chosen.ids and criteria != DeliveryFilter():
        raise NotUnderstood("name webhooks by their ids, or select them, not both")
    document = asyncio.run(_redeliver_all(chosen, terminal, criteria))
    if terminal.json:
        terminal.print_json(document)
    elif chosen.dry_run:
        terminal.print(f"{plural(document.selected, 'webhook')} would be delivered again")
    else:
        terminal.print(f"{plural(document.redelivered, 'webhook')} will be delivered again")


async def _redeliver_all(chosen: argparse.Namespace, terminal: Terminal, criteria: DeliveryFilter) -> Redelivery:
    named = [make_filter(delivery_id=one) for one in chosen.ids]
    async with reading(chosen) as stores:
        admin = WebhookAdmin(stores.webhooks, lambda event: None)
        selected = await _select(admin, named or [criteria])
    total = sum(map(len, selected))
    if not approve(chosen, terminal, total, "delivered again", "webhook", is_named=bool(named)):
        return Redelivery(total, 0)
    operator = operator_of(chosen)
    async with acting(chosen) as queue, counting(chosen, queue) as counts:
        admin = WebhookAdmin(queue.webhooks, counts.emit)
        if named:
            done = sum([await admin.redeliver(one, operator) for one in named])
        else:
            done = await admin.redeliver_batches(_batches(selected), operator, target_of(criteria))
    return Redelivery(total, done)


async def _select(admin: WebhookAdmin, selections: list[DeliveryFilter]) -> list[list[int]]:
    try:
        return [ids for one in selections async for ids in admin.selected(one)]
    except BadRequest as error:
        raise NotUnderstood("no webhooks are selected; name their ids, or add --request, --host, --since or --until") from error


async def _batches(selected: list[list[int]]) -> AsyncIterator[list[int]]:
    for ids in selected:
        yield ids
