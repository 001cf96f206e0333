"""The operations on webhook deliveries, each from a batch to its results, inside a transaction that the writer opened."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from queue_middleware.circuit import MOST_AT_ONCE, Health, Outcome, Waiting, judge, share
from queue_middleware.models import DeliveryState, Standing, WebhookKind
from queue_middleware.request_id import format_request_id
from queue_middleware.store import Topic
from queue_middleware.webhooks import Attempt, Claimed, Delivery, Room, Settled

from .jobs import NotTogether
from .queries import execute_rows
from .transaction import Transaction

NEVER_SENT = "given up without another attempt: the host has been failing for as long as the whole schedule takes"
_BURIED_TOGETHER = 500
"""Rows that are given up in one transaction; the next probe takes the next."""

# --- claiming


def claim(transaction: Transaction, batch: Sequence[Room]) -> list[Claimed]:
    """Start due deliveries, shared out between their hosts."""
    return [_claim(transaction, room) for room in batch]


def _claim(transaction: Transaction, room: Room) -> Claimed:
    now = transaction.now
    waiting = _waiting(transaction, room)
    shares = share(room, waiting)
    standings = {one.host: one.standing for one in waiting}
    claimed: list[Delivery] = []
    for count, hosts in _by_count(shares.of_host):
        claimed += _start(transaction, hosts, count, standings)
    if waiting:
        probed = [host for host in shares.of_host if standings[host] is Standing.OPEN]
        if probed:
            transaction.change("hold_for_probe", {"until": now + transaction.lease, "hosts": json.dumps(probed)})
        # Those too that got nothing: what was due there may have been taken back.
        asked = [one.host for one in waiting if one.host in shares.of_host or one.due == 0]
        transaction.change("look_again", {"now": now, "hosts": json.dumps(asked)})
    next_at = transaction.one("next_delivery", {"after": now})
    return Claimed(
        deliveries=claimed,
        next_in=None if next_at is None or next_at[0] is None else (next_at[0] - now) / 1000,
        full=shares.full,
        held_back=shares.held_back,
    )


def _waiting(transaction: Transaction, room: Room) -> list[Waiting]:
    """Hosts with something due, the longest due first, and enough of them though some have all they may have."""
    asked = {"now": transaction.now, "most": MOST_AT_ONCE + 1, "limit": room.limit + len(room.busy)}
    rows = [*transaction.all("due_good", asked), *transaction.all("due_others", asked)]
    rows.sort(key=lambda row: (row[2], row[0]))
    return [Waiting(host, Standing(standing), due) for host, standing, _, due in rows]


def _by_count(of_host: dict[str, int]) -> Iterable[tuple[int, list[str]]]:
    """Hosts that get as many as one another, together: each count is one statement."""
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for host, count in of_host.items():
        groups[count].append(host)
    return groups.items()


def _start(transaction: Transaction, hosts: list[str], count: int, standings: dict[str, Standing]) -> list[Delivery]:
    rows = transaction.all(
        "claim_deliveries",
        {
            "owner": transaction.owner,
            "now": transaction.now,
            "lease_until": transaction.lease_until,
            "hosts": json.dumps(hosts),
            "count": count,
        },
    )
    rows.sort(key=lambda row: row[:2])
    return [
        Delivery(
            number, token, url, host, attempt, key, format_request_id(key, tail), spent, WebhookKind(kind), place, data,
            standings[host],
        )
        for _, number, token, url, host, attempt, spent, kind, place, data, key, tail in rows
    ]  # fmt: skip


def release(transaction: Transaction, batch: Sequence[Collection[int] | None]) -> list[None]:
    """Hand back deliveries of this owner, those of some tokens or all; their attempt is not charged."""
    for tokens in batch:
        named = None if tokens is None else json.dumps(list(tokens))
        if transaction.change("release_deliveries", {"now": transaction.now, "owner": transaction.owner, "tokens": named}):
            transaction.topics.add(Topic.DELIVERY)
    return [None] * len(batch)


# --- settling

Settlement = tuple[Delivery, Attempt, bool, int | None, Outcome | None, int]
"""Delivery, attempt, delivered, milliseconds to the next, what it says about the host, milliseconds of the whole schedule."""


def settle(transaction: Transaction, batch: Sequence[Settlement]) -> list[Settled]:
    """Record attempts and what follows from them."""
    rows = [_settlement_row(transaction, *settlement) for settlement in batch]
    if execute_rows(transaction.connection, "settle", rows) < len(batch):
        if len(batch) > 1:
            raise NotTogether
        return [Settled(held=False)]
    execute_rows(transaction.connection, "insert_attempts", [_attempt_row(one[0], one[1]) for one in batch])
    # The end of one that told of something earlier makes the next of its request due.
    if any(row[2] == DeliveryState.PENDING or settlement[0].number for row, settlement in zip(rows, batch, strict=True)):
        transaction.topics.add(Topic.DELIVERY)
    settled = _judge(transaction, batch)
    news = [
        row[0] for row, settlement in zip(rows, batch, strict=True) if settlement[0].number and row[2] == DeliveryState.PENDING
    ]
    return _with_overtaken(transaction, batch, settled, news) if news else settled


def _with_overtaken(
    transaction: Transaction, batch: Sequence[Settlement], settled: Sequence[Settled], news: Sequence[int]
) -> list[Settled]:
    """Of news that are to be tried again only the database knows whether there are newer ones."""
    overtaken = {row[0] for row in transaction.all("superseded", (json.dumps(news),))}
    return [one.replace(superseded=settlement[0].id in overtaken) for settlement, one in zip(batch, settled, strict=True)]


def _settlement_row(
    transaction: Transaction, delivery: Delivery, _: Attempt, delivered: bool, retry_in: int | None, *__: Any
) -> tuple[Any, ...]:
    state = DeliveryState.DELIVERED if delivered else DeliveryState.DEAD if retry_in is None else DeliveryState.PENDING
    return delivery.id, delivery.token, state, transaction.now + (retry_in or 0)


def _attempt_row(delivery: Delivery, attempt: Attempt) -> tuple[Any, ...]:
    return delivery.id, delivery.attempt, attempt.at, attempt.duration, attempt.status, attempt.error, attempt.answer


def _judge(transaction: Transaction, batch: Sequence[Settlement]) -> list[Settled]:
    """What the attempts say about their hosts; nothing is written of those that were well and still are."""
    hosts = list({settlement[0].host for settlement in batch})
    found = transaction.all("receivers_of", (json.dumps(hosts),))
    before = {host: Health(Standing(standing), *rest) for host, standing, *rest in found}
    health = dict(before)
    settled: list[Settled] = []
    for delivery, _, _, _, outcome, patience in batch:
        old = health.get(delivery.host)
        if old is None:
            settled.append(Settled(held=True))
            continue
        new = judge(old, outcome, transaction.now, probe=delivery.standing is Standing.OPEN)
        health[delivery.host] = new
        buried = sum(len(one.given_up) for one in settled)
        settled.append(_consequence(transaction, delivery, old, new, patience, _BURIED_TOGETHER - buried))
    _write_down(transaction, [(host, new) for host, new in health.items() if new != before[host]])
    return settled


def _consequence(transaction: Transaction, delivery: Delivery, old: Health, new: Health, patience: int, limit: int) -> Settled:
    now = transaction.now
    given_up: tuple[Delivery, ...] = ()
    if new.standing is Standing.OPEN and new != old and (new.failing_since or now) <= now - patience:
        given_up = _give_up(transaction, delivery, now - patience, limit)
    pause = ((new.held_until or now) - now) / 1000
    change = None if new.standing is old.standing else (old.standing, new.standing)
    return Settled(held=True, change=change, pause=pause, given_up=given_up)


def _give_up(transaction: Transaction, delivery: Delivery, before: int, limit: int) -> tuple[Delivery, ...]:
    """The host has been failing for as long as a whole schedule takes: what has waited for it as long is dead."""
    limits = {"host": delivery.host, "now": transaction.now, "before": before, "limit": limit}
    given_up = tuple(
        Delivery(number, 0, url, delivery.host, attempt, key, format_request_id(key, tail))
        for number, url, attempt, key, tail in transaction.all("give_up", limits)
    )
    nothing = Attempt(transaction.now, 0.0, None, NEVER_SENT)
    execute_rows(transaction.connection, "insert_attempts", [_attempt_row(one, nothing) for one in given_up])
    return given_up


def _write_down(transaction: Transaction, changed: Sequence[tuple[str, Health]]) -> None:
    for host, health in changed:
        row = {
            "host": host,
            "standing": health.standing,
            "failures": health.failures,
            "failing_since": health.failing_since,
            "held_until": health.held_until,
        }
        transaction.change("judge_receiver", row)
    if changed:
        hosts = json.dumps([host for host, _ in changed])
        transaction.change("look_again", {"now": transaction.now, "hosts": hosts})
        transaction.topics.add(Topic.DELIVERY)


# --- delivering again


def redeliver(transaction: Transaction, batch: Sequence[Collection[int]]) -> list[int]:
    """Make webhooks due again, and let their hosts be probed."""
    return [_redeliver(transaction, ids) for ids in batch]


def _redeliver(transaction: Transaction, ids: Collection[int]) -> int:
    hosts = [row[0] for row in transaction.all("redeliver", {"now": transaction.now, "ids": json.dumps(list(ids))})]
    if hosts:
        several = json.dumps(sorted(set(hosts)))
        transaction.change("probe_now", {"now": transaction.now, "hosts": several})
        transaction.change("look_again", {"now": transaction.now, "hosts": several})
        transaction.topics.add(Topic.DELIVERY)
    return len(hosts)
