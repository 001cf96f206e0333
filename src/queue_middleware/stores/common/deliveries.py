"""Operations on webhook deliveries: claim, settle, release, redeliver. Each takes a batch and returns as many results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from queue_middleware.jobs.ids import format_request_id
from queue_middleware.jobs.models import WebhookKind
from queue_middleware.jobs.store import Topic
from queue_middleware.webhooks.fairness import HOST_LIMITS, MAX_FLOW_LIMIT, Allocation, FlowBacklog, allocate
from queue_middleware.webhooks.models import Capacity, Claimed, Delivery, DeliveryAttempt, DeliveryState, HostHealth, Settled

from .receiver_health import Settlement, attempt_row, schedule_next, update_all
from .transaction import Transaction

_LOOKED_AT = 2048
"""Flows that one claim looks at."""
_MOST_FLOWS = 2 * max(HOST_LIMITS.values()) + 1
"""Of one host: as many as it may have, and as many that are busy."""
_FEWEST_FLOWS = 4

# --- claiming


def claim(transaction: Transaction, batch: Sequence[Capacity]) -> list[Claimed]:
    """Start due deliveries, shared out between their hosts."""
    return [_claim(transaction, room) for room in batch]


def _claim(transaction: Transaction, room: Capacity) -> Claimed:
    now = transaction.now
    hosts = _due_hosts(transaction, room)
    waiting = _due_flows(transaction, hosts) if hosts else []
    shares = allocate(room, waiting)
    flows = {one.flow: one for one in waiting}
    probed_elsewhere = _hold_for_probes(transaction, [flows[flow] for flow in shares.by_flow])
    served = {flow: count for flow, count in shares.by_flow.items() if flow not in probed_elsewhere}
    claimed: list[Delivery] = []
    for count, several in _by_count(served):
        claimed += _start(transaction, several, count, flows)
    if hosts:
        # Those too that got nothing: what was due there may have been taken back.
        nothing = [one.flow for one in waiting if one.due == 0]
        schedule_next(transaction, list(served), [*nothing, *probed_elsewhere], _unless_held_back(hosts, waiting, shares))
    next_at = transaction.one("next_delivery", {"after": now})
    return Claimed(
        deliveries=claimed,
        next_in=None if next_at is None or next_at[0] is None else (next_at[0] - now) / 1000,
        full=shares.full,
        limited_hosts=shares.limited_hosts,
    )


def _due_hosts(transaction: Transaction, room: Capacity) -> dict[str, HostHealth]:
    """Hosts with something due, the longest due first, and enough of them though some have all they may have."""
    asked = {"now": transaction.now, "limit": room.limit + len(room.busy)}
    rows = [*transaction.all("due_good", asked), *transaction.all("due_others", asked)]
    rows.sort(key=lambda row: (row[2], row[0]))
    return {host: HostHealth(standing) for host, standing, _ in rows}


def _due_flows(transaction: Transaction, hosts: dict[str, HostHealth]) -> list[FlowBacklog]:
    """Their flows, those first whose turn has come first."""
    each = max(_FEWEST_FLOWS, min(_MOST_FLOWS, _LOOKED_AT // len(hosts)))
    asked = {"now": transaction.now, "most": MAX_FLOW_LIMIT + 1, "hosts": list(hosts), "each": each}
    rows = transaction.all("due_flows", asked)
    rows.sort(key=lambda row: (row[3], row[0]))
    return [FlowBacklog(flow, HostHealth(standing), due, host, hosts[host]) for flow, host, standing, _, due in rows]


def _unless_held_back(hosts: Collection[str], waiting: Collection[FlowBacklog], shares: Allocation) -> list[str]:
    """Hosts that were given something, or have nothing due; the others keep their place."""
    given = {one.host for one in waiting if one.flow in shares.by_flow or one.due == 0}
    return [host for host in hosts if host in given or all(one.host != host for one in waiting)]


def _hold_for_probes(transaction: Transaction, chosen: Collection[FlowBacklog]) -> set[str]:
    """A receiver with an open circuit gets one probe at a time, over all processes; the flows that another one probes."""
    until = {"now": transaction.now, "until": transaction.now + transaction.lease}
    hosts = [one.host for one in chosen if one.host_health is HostHealth.OPEN]
    held = {row[0] for row in transaction.all("hold_hosts_for_probe", {**until, "hosts": hosts})} if hosts else set()
    lost = {one.flow for one in chosen if one.host_health is HostHealth.OPEN and one.host not in held}
    flows = [one.flow for one in chosen if one.health is HostHealth.OPEN and one.flow not in lost]
    if flows:
        lost.update(flows)
        lost.difference_update(row[0] for row in transaction.all("hold_flows_for_probe", {**until, "flows": flows}))
    return lost


def _by_count(of_flow: dict[str, int]) -> Iterable[tuple[int, list[str]]]:
    """Flows that get as many as one another, together: each count is one statement."""
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for flow, count in of_flow.items():
        groups[count].append(flow)
    return groups.items()


def _start(transaction: Transaction, several: list[str], count: int, flows: dict[str, FlowBacklog]) -> list[Delivery]:
    rows = transaction.all(
        "claim_deliveries",
        {
            "owner": transaction.owner,
            "now": transaction.now,
            "lease_until": transaction.lease_until,
            "flows": several,
            "count": count,
        },
    )
    rows.sort(key=lambda row: row[:2])
    return [
        Delivery(
            number, token, url, host, attempt, key, format_request_id(key, tail), spent, WebhookKind(kind), place, data,
            _standing(flows[flow]), flow,
        )
        for _, number, token, url, host, attempt, spent, kind, place, data, flow, key, tail in rows
    ]  # fmt: skip


def _standing(one: FlowBacklog) -> HostHealth:
    return HostHealth.OPEN if one.host_health is HostHealth.OPEN else one.health


def release(transaction: Transaction, batch: Sequence[tuple[Collection[int], int]]) -> list[None]:
    """Hand back deliveries of this owner, due in so many milliseconds; their attempt is not charged."""
    for tokens, wait in batch:
        row = {"due": transaction.now + wait, "owner": transaction.owner, "tokens": list(tokens)}
        transaction.change("probes_given_back", row)
        transaction.change("host_probes_given_back", row)
        if transaction.change("release_deliveries", row):
            transaction.topics.add(Topic.DELIVERY)
    return [None] * len(batch)


# --- settling


def settle(transaction: Transaction, batch: Sequence[Settlement]) -> list[Settled]:
    """Record attempts and what follows from them."""
    rows = [_settlement_row(transaction, *settlement) for settlement in batch]
    claims = {row[:2] for row in transaction.held("settle", rows)}
    held = [(row, settlement) for row, settlement in zip(rows, batch, strict=True) if row[:2] in claims]
    settled = iter(_record(transaction, [row for row, _ in held], [settlement for _, settlement in held]) if held else ())
    return [next(settled) if row[:2] in claims else Settled(held=False) for row in rows]


def _record(transaction: Transaction, rows: Sequence[tuple[Any, ...]], batch: Sequence[Settlement]) -> list[Settled]:
    transaction.rows("insert_attempts", [attempt_row(one[0], one[1]) for one in batch])
    # The end of an earlier webhook of a request makes the next one due.
    if any(row[2] == DeliveryState.PENDING or settlement[0].number for row, settlement in zip(rows, batch, strict=True)):
        transaction.topics.add(Topic.DELIVERY)
    settled = update_all(transaction, batch)
    earlier = [
        row[0] for row, settlement in zip(rows, batch, strict=True) if settlement[0].number and row[2] == DeliveryState.PENDING
    ]
    return _with_overtaken(transaction, batch, settled, earlier) if earlier else settled


def _with_overtaken(
    transaction: Transaction, batch: Sequence[Settlement], settled: Sequence[Settled], earlier: Sequence[int]
) -> list[Settled]:
    """Mark the earlier webhooks that are not repeated, because the database has a later one of the same request."""
    overtaken = {row[0] for row in transaction.all("superseded", (earlier,))}
    return [one.replace(superseded=settlement[0].id in overtaken) for settlement, one in zip(batch, settled, strict=True)]


def _settlement_row(
    transaction: Transaction, delivery: Delivery, _: DeliveryAttempt, delivered: bool, retry_in: int | None, *__: Any
) -> tuple[Any, ...]:
    state = DeliveryState.DELIVERED if delivered else DeliveryState.DEAD if retry_in is None else DeliveryState.PENDING
    return delivery.id, delivery.token, state, transaction.now + (retry_in or 0)


# --- delivering again


def redeliver(transaction: Transaction, batch: Sequence[Collection[int]]) -> list[int]:
    """Make webhooks due again, and let their hosts be probed."""
    return [_redeliver(transaction, ids) for ids in batch]


def _redeliver(transaction: Transaction, ids: Collection[int]) -> int:
    found = transaction.all("redeliver", {"now": transaction.now, "ids": list(ids)})
    if found:
        hosts, flows = sorted({row[0] for row in found}), sorted({row[1] for row in found})
        transaction.change("probe_flows_now", {"now": transaction.now, "flows": flows})
        transaction.change("probe_hosts_now", {"now": transaction.now, "hosts": hosts})
        schedule_next(transaction, [], flows, hosts)
        transaction.topics.add(Topic.DELIVERY)
    return len(found)
