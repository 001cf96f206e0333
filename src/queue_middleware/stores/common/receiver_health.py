"""Updates the health of webhook receivers after attempts, and gives up webhooks to receivers that fail for too long."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from queue_middleware.jobs.ids import format_request_id
from queue_middleware.jobs.store import Topic
from queue_middleware.jobs.struct import Struct
from queue_middleware.webhooks.circuit import AttemptOutcome, HealthRecord, next_health, next_host_health
from queue_middleware.webhooks.models import Delivery, DeliveryAttempt, HostHealth, Settled

from .transaction import Transaction

NEVER_SENT = "given up without another attempt: the host has been failing for as long as the whole schedule takes"
_MAX_GIVEN_UP = 500
"""Webhooks that are given up in one transaction. More are given up after the next failed probe."""

Settlement = tuple[Delivery, DeliveryAttempt, bool, int | None, AttemptOutcome | None, int]
"""Delivery, attempt, whether delivered, milliseconds to the retry, outcome for the receiver, milliseconds of the schedule."""


class _Healths(Struct, frozen=True):
    """The health of a flow and of its host."""

    flow: HealthRecord
    host: HealthRecord
    suspects: frozenset[str]


def update_all(transaction: Transaction, batch: Sequence[Settlement]) -> list[Settled]:
    """Update the health of flows and hosts after attempts; nothing is written for a health that does not change."""
    flows, hosts = _read(transaction, batch)
    before = dict(flows), dict(hosts)
    settled: list[Settled] = []
    for delivery, _, _, _, outcome, patience in batch:
        if delivery.flow not in flows:
            settled.append(Settled(held=True))
            continue
        old = _Healths(flows[delivery.flow], *hosts[delivery.host])
        new = _next_health(old, delivery, outcome, transaction.now)
        flows[delivery.flow], hosts[delivery.host] = new.flow, (new.host, new.suspects)
        given_up = sum(len(one.given_up) for one in settled)
        settled.append(_settled(transaction, delivery, old, new, patience, _MAX_GIVEN_UP - given_up))
    changed_flows = {flow: health for flow, health in flows.items() if health != before[0][flow]}
    changed_hosts = {host: health for host, health in hosts.items() if health != before[1][host]}
    recovered = [
        host for host, health in changed_hosts.items() if before[1][host][0].health is HostHealth.OPEN is not health[0].health
    ]
    _write(transaction, changed_flows, changed_hosts, recovered)
    if changed_flows or changed_hosts:
        touched = changed_hosts.keys() | {one[0].host for one in batch if one[0].flow in changed_flows}
        schedule_next(transaction, [], list(changed_flows), list(touched))
        transaction.topics.add(Topic.DELIVERY)
    return settled


def _read(
    transaction: Transaction, batch: Sequence[Settlement]
) -> tuple[dict[str, HealthRecord], dict[str, tuple[HealthRecord, frozenset[str]]]]:
    """The health of the flows of a batch, and of their hosts with their suspects."""
    flows: dict[str, HealthRecord] = {}
    hosts: dict[str, tuple[HealthRecord, frozenset[str]]] = {}
    for row in transaction.all("health_of_flows", (list({one[0].flow for one in batch}),)):
        flow, health, failures, since, until, host, host_health, host_failures, host_since, host_until, suspects = row
        flows[flow] = HealthRecord(HostHealth(health), failures, since, until)
        hosts[host] = HealthRecord(HostHealth(host_health), host_failures, host_since, host_until), frozenset(suspects.split())
    return flows, hosts


def _next_health(old: _Healths, delivery: Delivery, outcome: AttemptOutcome | None, now: int) -> _Healths:
    probe = delivery.health is HostHealth.OPEN
    flow = next_health(old.flow, outcome, now, probe=probe)
    host, suspects = next_host_health(old.host, old.suspects, outcome, delivery.flow, now, probe=probe)
    return _Healths(flow, host, suspects)


def _settled(transaction: Transaction, delivery: Delivery, old: _Healths, new: _Healths, patience: int, limit: int) -> Settled:
    now = transaction.now
    given_up: tuple[Delivery, ...] = ()
    if _has_failed_since(new.host, old.host, now - patience):
        given_up = _give_up(transaction, delivery.host, None, now - patience, limit)
    elif _has_failed_since(new.flow, old.flow, now - patience):
        given_up = _give_up(transaction, delivery.host, delivery.flow, now - patience, limit)
    until = max(new.flow.open_until or now, new.host.open_until or now)
    return Settled(
        held=True,
        flow_change=_health_change(old.flow, new.flow),
        host_change=_health_change(old.host, new.host),
        pause=(until - now) / 1000,
        given_up=given_up,
    )


def _health_change(old: HealthRecord, new: HealthRecord) -> tuple[HostHealth, HostHealth] | None:
    return None if new.health is old.health else (old.health, new.health)


def _has_failed_since(new: HealthRecord, old: HealthRecord, since: int) -> bool:
    """Whether the receiver has just failed again, and has been failing since this time or longer."""
    return new.health is HostHealth.OPEN and new != old and new.failing_since is not None and new.failing_since <= since


def _give_up(transaction: Transaction, host: str, flow: str | None, before: int, limit: int) -> tuple[Delivery, ...]:
    """Give up webhooks that have been due for a whole schedule at a receiver that has failed all that time."""
    parameters = {"host": host, "flow": flow, "now": transaction.now, "before": before, "limit": limit}
    given_up = tuple(
        Delivery(delivery_id, 0, url, host, attempt, key, format_request_id(key, tail), flow=its_flow)
        for delivery_id, url, attempt, its_flow, key, tail in transaction.all("give_up_deliveries", parameters)
    )
    not_sent = DeliveryAttempt(transaction.now, 0.0, None, NEVER_SENT)
    transaction.rows("insert_delivery_attempts", [attempt_row(delivery, not_sent) for delivery in given_up])
    return given_up


def attempt_row(delivery: Delivery, attempt: DeliveryAttempt) -> tuple[Any, ...]:
    """The columns of the block `insert_delivery_attempts`."""
    return delivery.id, delivery.attempt, attempt.at, attempt.duration, attempt.status, attempt.error, attempt.response_body


def _write(
    transaction: Transaction,
    flows: dict[str, HealthRecord],
    hosts: dict[str, tuple[HealthRecord, frozenset[str]]],
    recovered: Collection[str],
) -> None:
    for flow, health in flows.items():
        transaction.change("update_flow_health", {"flow": flow, **_columns(health)})
    for host, (health, suspects) in hosts.items():
        transaction.change("update_host_health", {"host": host, "suspects": " ".join(sorted(suspects)), **_columns(health)})
    if recovered:
        transaction.change("probe_flows_of_hosts", {"now": transaction.now, "hosts": list(recovered)})


def _columns(health: HealthRecord) -> dict[str, Any]:
    return {
        "health": health.health,
        "failures": health.failures,
        "failing_since": health.failing_since,
        "open_until": health.open_until,
    }


def schedule_next(transaction: Transaction, served: Collection[str], flows: Collection[str], hosts: Collection[str]) -> None:
    """Recompute `next_at` of flows, then of hosts. `served` are flows of which a delivery has just been claimed."""
    for several, earliest in ((served, transaction.now), (flows, 0)):
        if several:
            row = {"now": transaction.now, "earliest": earliest, "flows": list(several)}
            transaction.change("schedule_flows", row)
    if hosts:
        transaction.change("schedule_hosts", {"now": transaction.now, "hosts": list(hosts)})
