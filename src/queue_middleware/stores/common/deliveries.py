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

_MAX_FLOWS_PER_CLAIM = 2048
"""Flows that one claim looks at."""
_MAX_FLOWS_PER_HOST = 2 * max(HOST_LIMITS.values()) + 1
"""Of one host: as many as it may have, and as many that are busy."""
_MIN_FLOWS_PER_HOST = 4

# --- claiming


def claim(transaction: Transaction, batch: Sequence[Capacity]) -> list[Claimed]:
    """Start due deliveries, shared out between their hosts."""
    return [_claim(transaction, room) for room in batch]


def _claim(transaction: Transaction, capacity: Capacity) -> Claimed:
    now = transaction.now
    hosts = _due_hosts(transaction, capacity)
    waiting = _due_flows(transaction, hosts) if hosts else []
    shares = allocate(capacity, waiting)
    flows = {one.flow: one for one in waiting}
    claimed: list[Delivery] = []
    for count, several in _by_count(shares.by_flow):
        claimed += _start_deliveries(transaction, several, count, flows)
    if hosts:
        _reserve_probes(transaction, [flows[flow] for flow in shares.by_flow])
        # Those too that got nothing: what was due there may have been taken back.
        nothing = [one.flow for one in waiting if one.due == 0]
        schedule_next(transaction, list(shares.by_flow), nothing, _hosts_to_schedule(hosts, waiting, shares))
    next_at = transaction.one("next_delivery", {"after": now})
    return Claimed(
        deliveries=claimed,
        next_in=None if next_at is None or next_at[0] is None else (next_at[0] - now) / 1000,
        full=shares.full,
        limited_hosts=shares.limited_hosts,
    )


def _due_hosts(transaction: Transaction, capacity: Capacity) -> dict[str, HostHealth]:
    """Hosts with something due, the longest due first, and enough of them though some have all they may have."""
    asked = {"now": transaction.now, "limit": capacity.limit + len(capacity.busy)}
    rows = [*transaction.all("due_healthy_hosts", asked), *transaction.all("due_other_hosts", asked)]
    rows.sort(key=lambda row: (row[2], row[0]))
    return {host: HostHealth(standing) for host, standing, _ in rows}


def _due_flows(transaction: Transaction, hosts: dict[str, HostHealth]) -> list[FlowBacklog]:
    """Their flows, those first whose turn has come first."""
    each = max(_MIN_FLOWS_PER_HOST, min(_MAX_FLOWS_PER_HOST, _MAX_FLOWS_PER_CLAIM // len(hosts)))
    asked = {"now": transaction.now, "most": MAX_FLOW_LIMIT + 1, "hosts": list(hosts), "each": each}
    rows = transaction.all("due_flows", asked)
    rows.sort(key=lambda row: (row[3], row[0]))
    return [FlowBacklog(flow, HostHealth(standing), due, host, hosts[host]) for flow, host, standing, _, due in rows]


def _hosts_to_schedule(hosts: Collection[str], backlogs: Collection[FlowBacklog], allocation: Allocation) -> list[str]:
    """Hosts that were given something, or have nothing due; the others keep their place."""
    given = {one.host for one in backlogs if one.flow in allocation.by_flow or one.due == 0}
    return [host for host in hosts if host in given or all(one.host != host for one in backlogs)]


def _reserve_probes(transaction: Transaction, backlogs: Collection[FlowBacklog]) -> None:
    """A receiver with an open circuit gets one probe at a time, over all processes."""
    until = transaction.now + transaction.lease
    flows = [one.flow for one in backlogs if one.health is HostHealth.OPEN]
    hosts = [one.host for one in backlogs if one.host_health is HostHealth.OPEN]
    if flows:
        transaction.change("reserve_flow_probes", {"until": until, "flows": flows})
    if hosts:
        transaction.change("reserve_host_probes", {"until": until, "hosts": hosts})


def _by_count(by_flow: dict[str, int]) -> Iterable[tuple[int, list[str]]]:
    """Flows that get as many as one another, together: each count is one statement."""
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for flow, count in by_flow.items():
        groups[count].append(flow)
    return groups.items()


def _start_deliveries(
    transaction: Transaction, claimed: list[str], count: int, backlogs: dict[str, FlowBacklog]
) -> list[Delivery]:
    rows = transaction.all(
        "claim_deliveries",
        {
            "owner": transaction.owner,
            "now": transaction.now,
            "lease_until": transaction.lease_until,
            "flows": claimed,
            "count": count,
        },
    )
    rows.sort(key=lambda row: row[:2])
    return [
        Delivery(
            number, token, url, host, attempt, key, format_request_id(key, tail), spent, WebhookKind(kind), place, data,
            _health(backlogs[flow]), flow,
        )
        for _, number, token, url, host, attempt, spent, kind, place, data, flow, key, tail in rows
    ]  # fmt: skip


def _health(backlog: FlowBacklog) -> HostHealth:
    return HostHealth.OPEN if backlog.host_health is HostHealth.OPEN else backlog.health


def release(transaction: Transaction, batch: Sequence[tuple[Collection[int], int]]) -> list[None]:
    """Hand back deliveries of this owner, due in so many milliseconds; their attempt is not charged."""
    for tokens, wait in batch:
        row = {"due": transaction.now + wait, "owner": transaction.owner, "tokens": list(tokens)}
        transaction.change("release_flow_probes", row)
        transaction.change("release_host_probes", row)
        if transaction.change("release_deliveries", row):
            transaction.topics.add(Topic.DELIVERY)
    return [None] * len(batch)


# --- settling


def settle(transaction: Transaction, batch: Sequence[Settlement]) -> list[Settled]:
    """Record attempts and what follows from them."""
    rows = [_settlement_row(transaction, *settlement) for settlement in batch]
    claims = {row[:2] for row in transaction.held("settle_deliveries", rows)}
    held = [(row, settlement) for row, settlement in zip(rows, batch, strict=True) if row[:2] in claims]
    settled = iter(_record(transaction, [row for row, _ in held], [settlement for _, settlement in held]) if held else ())
    return [next(settled) if row[:2] in claims else Settled(held=False) for row in rows]


def _record(transaction: Transaction, rows: Sequence[tuple[Any, ...]], batch: Sequence[Settlement]) -> list[Settled]:
    transaction.rows("insert_delivery_attempts", [attempt_row(one[0], one[1]) for one in batch])
    # The end of an earlier webhook of a request makes the next one due.
    if any(row[2] == DeliveryState.PENDING or settlement[0].number for row, settlement in zip(rows, batch, strict=True)):
        transaction.topics.add(Topic.DELIVERY)
    settled = update_all(transaction, batch)
    earlier = [
        row[0] for row, settlement in zip(rows, batch, strict=True) if settlement[0].number and row[2] == DeliveryState.PENDING
    ]
    return _mark_superseded(transaction, batch, settled, earlier) if earlier else settled


def _mark_superseded(
    transaction: Transaction, batch: Sequence[Settlement], settled: Sequence[Settled], earlier: Sequence[int]
) -> list[Settled]:
    """Mark the earlier webhooks that are not repeated, because the database has a later one of the same request."""
    overtaken = {row[0] for row in transaction.all("superseded_deliveries", (earlier,))}
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
        transaction.change("probe_flows", {"now": transaction.now, "flows": flows})
        transaction.change("probe_hosts", {"now": transaction.now, "hosts": hosts})
        schedule_next(transaction, [], flows, hosts)
        transaction.topics.add(Topic.DELIVERY)
    return len(found)
