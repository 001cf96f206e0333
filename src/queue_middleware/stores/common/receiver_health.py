"""Updates the health of webhook receivers after attempts, and gives up what has waited too long."""

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
"""Rows that are given up in one transaction; the next probe takes the next."""

Settlement = tuple[Delivery, DeliveryAttempt, bool, int | None, AttemptOutcome | None, int]
"""Delivery, attempt, delivered, milliseconds to the next, the outcome for the receiver, milliseconds of the whole schedule."""


class _Healths(Struct, frozen=True):
    """Of a flow and its host."""

    flow: HealthRecord
    host: HealthRecord
    suspects: frozenset[str]


def update_all(transaction: Transaction, batch: Sequence[Settlement]) -> list[Settled]:
    """Update the health of flows and hosts after attempts; nothing is written for those that stay healthy."""
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
        buried = sum(len(one.given_up) for one in settled)
        settled.append(_settled(transaction, delivery, old, new, patience, _MAX_GIVEN_UP - buried))
    changed_flows = {flow: health for flow, health in flows.items() if health != before[0][flow]}
    changed_hosts = {host: known for host, known in hosts.items() if known != before[1][host]}
    again = [
        host for host, known in changed_hosts.items() if before[1][host][0].health is HostHealth.OPEN is not known[0].health
    ]
    _write(transaction, changed_flows, changed_hosts, again)
    if changed_flows or changed_hosts:
        touched = changed_hosts.keys() | {one[0].host for one in batch if one[0].flow in changed_flows}
        schedule_next(transaction, [], list(changed_flows), list(touched))
        transaction.topics.add(Topic.DELIVERY)
    return settled


def _read(
    transaction: Transaction, batch: Sequence[Settlement]
) -> tuple[dict[str, HealthRecord], dict[str, tuple[HealthRecord, frozenset[str]]]]:
    """Of the flows of a batch, and of their hosts."""
    flows: dict[str, HealthRecord] = {}
    hosts: dict[str, tuple[HealthRecord, frozenset[str]]] = {}
    for row in transaction.all("health_of_flows", (list({one[0].flow for one in batch}),)):
        flow, standing, failures, since, until, host, of_host, its_failures, its_since, its_until, suspects = row
        flows[flow] = HealthRecord(HostHealth(standing), failures, since, until)
        hosts[host] = HealthRecord(HostHealth(of_host), its_failures, its_since, its_until), frozenset(suspects.split())
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
    """Whether it has failed once more, and has been failing since then."""
    return new.health is HostHealth.OPEN and new != old and new.failing_since is not None and new.failing_since <= since


def _give_up(transaction: Transaction, host: str, flow: str | None, before: int, limit: int) -> tuple[Delivery, ...]:
    """Give up the webhooks that have waited for a whole schedule at a receiver that failed all that time."""
    limits = {"host": host, "flow": flow, "now": transaction.now, "before": before, "limit": limit}
    given_up = tuple(
        Delivery(number, 0, url, host, attempt, key, format_request_id(key, tail), flow=its)
        for number, url, attempt, its, key, tail in transaction.all("give_up_deliveries", limits)
    )
    nothing = DeliveryAttempt(transaction.now, 0.0, None, NEVER_SENT)
    transaction.rows("insert_delivery_attempts", [attempt_row(one, nothing) for one in given_up])
    return given_up


def attempt_row(delivery: Delivery, attempt: DeliveryAttempt) -> tuple[Any, ...]:
    """The columns of `insert_delivery_attempts`."""
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
        "standing": health.health,
        "failures": health.failures,
        "failing_since": health.failing_since,
        "held_until": health.open_until,
    }


def schedule_next(transaction: Transaction, served: Collection[str], flows: Collection[str], hosts: Collection[str]) -> None:
    """Recompute the next turn of flows, then of hosts. `served` are flows that have just been given a webhook."""
    for several, turn in ((served, transaction.now), (flows, 0)):
        if several:
            row = {"now": transaction.now, "turn": turn, "flows": list(several)}
            transaction.change("schedule_flows", row)
    if hosts:
        transaction.change("schedule_hosts", {"now": transaction.now, "hosts": list(hosts)})
