"""Operations on webhook deliveries: claim, release, settle, redeliver. Each takes a batch and returns one result per item."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.ids import format_request_id
from queue_middleware.jobs.models import WebhookKind
from queue_middleware.jobs.store import Topic
from queue_middleware.webhooks.fairness import HOST_LIMITS, MAX_CLAIM, Allocation, DueFlow, allocate
from queue_middleware.webhooks.models import (
    Capacity,
    Claimed,
    DeliveryAttempt,
    DeliveryClaim,
    DeliveryState,
    ReceiverHealth,
    Settled,
)

from . import audit, jobs
from .receiver_health import Settlement, attempt_row, schedule_next, update_all
from .transaction import Transaction

_MAX_FLOWS_PER_CLAIM = 2048
"""Flows that one claim reads."""
_MAX_FLOWS_PER_HOST = 2 * max(HOST_LIMITS.values()) + 1
"""Flows of one host that a claim reads: twice the limit of a host, because as many again may be busy, and one more."""
_MIN_FLOWS_PER_HOST = 4
_MAX_UNTOUCHED = 60_000
"""Milliseconds after which a claim has to update when a flow was last used, so that retention does not delete it."""

# --- claiming


def claim(transaction: Transaction, batch: Sequence[Capacity]) -> list[Claimed]:
    """Start due deliveries; `fairness.allocate` shares the capacity between hosts and flows."""
    return [_claim(transaction, capacity) for capacity in batch]


def _claim(transaction: Transaction, capacity: Capacity) -> Claimed:
    now = transaction.now
    hosts = _due_hosts(transaction, capacity)
    due_flows = _due_flows(transaction, hosts) if hosts else []
    allocation = allocate(capacity, due_flows)
    by_flow = {due_flow.flow: due_flow for due_flow in due_flows}
    probed_elsewhere = _reserve_probes(transaction, [by_flow[flow] for flow in allocation.by_flow])
    served = {flow: count for flow, count in allocation.by_flow.items() if flow not in probed_elsewhere}
    claimed: list[DeliveryClaim] = []
    for count, flows in _by_count(served):
        claimed += _start_deliveries(transaction, flows, count, by_flow)
    if hosts:
        # The `next_at` of a flow without a due delivery was out of date, for instance because a delivery was postponed.
        empty = [due_flow.flow for due_flow in due_flows if due_flow.due == 0]
        schedule_next(transaction, list(served), [*empty, *probed_elsewhere], _hosts_to_schedule(hosts, due_flows, allocation))
    next_at = transaction.one("next_delivery", {"after": now})
    return Claimed(
        deliveries=claimed,
        next_in=None if next_at is None or next_at[0] is None else (next_at[0] - now) / 1000,
        full=allocation.full,
        limited_hosts=allocation.limited_hosts,
    )


def _due_hosts(transaction: Transaction, capacity: Capacity) -> dict[str, ReceiverHealth]:
    """Hosts with a due delivery, the longest due first: enough to use the capacity although busy hosts are at their limit."""
    parameters = {"now": transaction.now, "limit": capacity.limit + len(capacity.busy)}
    rows = transaction.all("due_hosts", parameters)
    rows.sort(key=lambda row: (row[2], row[0]))
    return {host: ReceiverHealth(health) for host, health, _ in rows}


def _due_flows(transaction: Transaction, hosts: dict[str, ReceiverHealth]) -> list[DueFlow]:
    """The due flows of these hosts, the longest due first."""
    each = max(_MIN_FLOWS_PER_HOST, min(_MAX_FLOWS_PER_HOST, _MAX_FLOWS_PER_CLAIM // len(hosts)))
    parameters = {"now": transaction.now, "most": MAX_CLAIM + 1, "hosts": list(hosts), "each": each}
    rows = transaction.all("due_flows", parameters)
    rows.sort(key=lambda row: (row[3], row[0]))
    return [DueFlow(flow, ReceiverHealth(health), due, host, hosts[host]) for flow, host, health, _, due in rows]


def _hosts_to_schedule(hosts: Collection[str], due_flows: Collection[DueFlow], allocation: Allocation) -> list[str]:
    """Hosts that got a share of the capacity or have no due flow. All others stay due as they are."""
    served = {due_flow.host for due_flow in due_flows if due_flow.flow in allocation.by_flow or due_flow.due == 0}
    return [host for host in hosts if host in served or all(due_flow.host != host for due_flow in due_flows)]


def _reserve_probes(transaction: Transaction, due_flows: Collection[DueFlow]) -> set[str]:
    """Reserve the one probe that an open circuit allows, for as long as a lease. Returns the flows that others are probing."""
    until = {"now": transaction.now, "until": transaction.now + transaction.lease}
    hosts = [due_flow.host for due_flow in due_flows if due_flow.host_health is ReceiverHealth.OPEN]
    reserved = {row[0] for row in transaction.all("reserve_host_probes", {**until, "hosts": hosts})} if hosts else set()
    lost = {
        due_flow.flow for due_flow in due_flows if due_flow.host_health is ReceiverHealth.OPEN and due_flow.host not in reserved
    }
    flows = [due_flow.flow for due_flow in due_flows if due_flow.health is ReceiverHealth.OPEN and due_flow.flow not in lost]
    if flows:
        lost.update(flows)
        lost.difference_update(row[0] for row in transaction.all("reserve_flow_probes", {**until, "flows": flows}))
    return lost


def _by_count(by_flow: dict[str, int]) -> Iterable[tuple[int, list[str]]]:
    """Flows grouped by their number of deliveries: one statement claims for all flows of a group."""
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for flow, count in by_flow.items():
        groups[count].append(flow)
    return groups.items()


def _start_deliveries(
    transaction: Transaction, flows: list[str], count: int, due_flows: dict[str, DueFlow]
) -> list[DeliveryClaim]:
    rows = transaction.all(
        "claim_deliveries",
        {
            "owner": transaction.owner,
            "now": transaction.now,
            "lease_until": transaction.lease_until,
            "flows": flows,
            "count": count,
        },
    )
    rows.sort(key=lambda row: row[:2])
    return [
        DeliveryClaim(
            delivery_id, token, url, host, attempt, key, format_request_id(key, tail), spent, WebhookKind(kind), number, data,
            _health(due_flows[flow]), flow, since=since,
        )
        for _, delivery_id, token, url, host, attempt, spent, kind, number, data, flow, since, key, tail in rows
    ]  # fmt: skip


def _health(due_flow: DueFlow) -> ReceiverHealth:
    return ReceiverHealth.OPEN if due_flow.host_health is ReceiverHealth.OPEN else due_flow.health


class Reservation:
    """A slot of this process for the webhook of a job that is being completed."""

    __slots__ = ("delivery", "delivery_id")

    def __init__(self, delivery: DeliveryClaim) -> None:
        self.delivery = delivery
        """The claim of the first attempt, without the id of the delivery."""
        self.delivery_id: int | None = None
        """Set by the transaction if the delivery is claimed."""


def complete_and_claim(transaction: Transaction, batch: Sequence[tuple[jobs.EndedAttempt, Reservation]]) -> list[bool]:
    """`jobs.finish`, and claim those webhooks that nothing else at their host is due before."""
    results, held = jobs.end(transaction, [ended for ended, _ in batch])
    reserved = {ended[:2]: reservation for ended, reservation in batch}
    last_id, flows = _ready_flows(transaction, reserved.values())
    rows: list[tuple[Any, ...]] = []
    others: list[tuple[int, str | None]] = []
    for key, token, url, _, _ in held:
        reservation = reserved[key, token]
        delivery = reservation.delivery
        if delivery.flow in flows:
            last_id += 1
            reservation.delivery_id = last_id
            rows.append((last_id, key, delivery.token, url, delivery.host, delivery.flow))
        else:
            others.append((key, url))
    if rows:
        common = (transaction.owner, transaction.lease_until, transaction.now, transaction.now)
        transaction.rows("insert_claimed_deliveries", rows, common)
    jobs.insert_deliveries(transaction, others)
    return results


def _ready_flows(transaction: Transaction, reservations: Iterable[Reservation]) -> tuple[int, set[str]]:
    """The largest id of a delivery, and the flows whose next webhook can be sent at once."""
    flows: set[str] = set()
    for reservation in reservations:
        reservation.delivery_id = None  # it was set if this transaction is repeated
        flows.add(reservation.delivery.flow)
    parameters = {"now": transaction.now, "used_after": transaction.now - _MAX_UNTOUCHED, "flows": list(flows)}
    rows = transaction.all("ready_flows", parameters)
    return (rows[0][1] if rows else 0), {row[0] for row in rows}


def release(transaction: Transaction, batch: Sequence[tuple[Collection[DeliveryClaim], int]]) -> list[None]:
    """Release deliveries of this process, due as before or after a delay in milliseconds, without charging the attempt."""
    for released, delay in batch:
        due, owner = transaction.now + delay, transaction.owner
        probes = [one.token for one in released if one.health is ReceiverHealth.OPEN]
        if probes:  # any other one was claimed before the circuit opened
            row = {"due": due, "owner": owner, "tokens": probes}
            transaction.change("release_flow_probes", row)
            transaction.change("release_host_probes", row)
        tokens = [one.token for one in released]
        if transaction.change("release_deliveries", {"due": due if delay else None, "owner": owner, "tokens": tokens}):
            transaction.topics.add(Topic.DELIVERY)
    return [None] * len(batch)


# --- settling


def settle(transaction: Transaction, batch: Sequence[Settlement]) -> list[Settled]:
    """Record attempts and the new states of their deliveries and receivers."""
    rows = [_settlement_row(transaction, *settlement) for settlement in batch]
    claims = {row[:2] for row in transaction.held("settle_deliveries", rows)}
    held = [(row, settlement) for row, settlement in zip(rows, batch, strict=True) if row[:2] in claims]
    settled = iter(_record(transaction, [row for row, _ in held], [settlement for _, settlement in held]) if held else ())
    return [next(settled) if row[:2] in claims else Settled(held=False) for row in rows]


def _record(transaction: Transaction, rows: Sequence[tuple[Any, ...]], batch: Sequence[Settlement]) -> list[Settled]:
    transaction.rows("insert_delivery_attempts", [attempt_row(one[0], one[1]) for one in batch])
    # When a webhook of a request has ended, the next one of the same request becomes due.
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
    """Mark the results of webhooks that are not retried because a later one of the same request exists."""
    superseded = {row[0] for row in transaction.all("superseded_deliveries", (earlier,))}
    return [one.replace(superseded=settlement[0].id in superseded) for settlement, one in zip(batch, settled, strict=True)]


def _settlement_row(
    transaction: Transaction, delivery: DeliveryClaim, _: DeliveryAttempt, delivered: bool, retry_in: int | None, *__: Any
) -> tuple[Any, ...]:
    state = DeliveryState.DELIVERED if delivered else DeliveryState.DEAD if retry_in is None else DeliveryState.PENDING
    return delivery.id, delivery.token, state, transaction.now + (retry_in or 0)


# --- redelivering


def redeliver(transaction: Transaction, batch: Sequence[tuple[Collection[int], str, str]]) -> list[int]:
    """Make webhooks due again, and open circuits ready for a probe. Each item: ids, operator, target of the record."""
    return [_redeliver(transaction, *item) for item in batch]


def _redeliver(transaction: Transaction, ids: Collection[int], operator: str, target: str) -> int:
    found = transaction.all("redeliver", {"now": transaction.now, "ids": list(ids)})
    if found:
        audit.record(transaction, [(operator, Action.REDELIVER, target, len(found))])
        _allow_probes(transaction, sorted({row[0] for row in found}), sorted({row[1] for row in found}))
    return len(found)


def probe(transaction: Transaction, batch: Sequence[tuple[str, str]]) -> list[int]:
    """Send a probe now to each of these hosts whose circuit, or that of a flow, is open. Each item: host, operator."""
    return [_probe(transaction, *item) for item in batch]


def _probe(transaction: Transaction, host: str, operator: str) -> int:
    flows = [flow for (flow,) in transaction.all("flows_to_probe", {"host": host})]
    if not flows:
        return 0
    # The webhook may have been delayed by its own schedule for longer than the circuit is open.
    probes = transaction.change("make_probes_due", {"now": transaction.now, "flows": flows})
    _allow_probes(transaction, [host], flows)
    if probes:
        audit.record(transaction, [(operator, Action.PROBE, host, probes)])
    return probes


def _allow_probes(transaction: Transaction, hosts: list[str], flows: list[str]) -> None:
    """End the pauses of open circuits."""
    transaction.change("probe_flows", {"now": transaction.now, "flows": flows})
    transaction.change("probe_hosts", {"now": transaction.now, "hosts": hosts})
    schedule_next(transaction, [], flows, hosts)
    transaction.topics.add(Topic.DELIVERY)
