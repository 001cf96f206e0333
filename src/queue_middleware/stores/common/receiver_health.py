"""Updates the health of webhook receivers after attempts, and gives up webhooks to receivers that fail for too long."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

from queue_middleware.jobs.ids import format_request_id
from queue_middleware.jobs.store import Topic
from queue_middleware.jobs.struct import Struct
from queue_middleware.webhooks.circuit import AttemptOutcome, HealthRecord, next_health, next_host_health
from queue_middleware.webhooks.models import DeliveryAttempt, DeliveryClaim, ReceiverHealth, Settled

from .codec import clean
from .transaction import Transaction

NOT_TRIED_AGAIN = "given up without another attempt: the host has been failing for as long as the whole schedule takes"
_MAX_GIVEN_UP = 500
"""Webhooks that are given up in one transaction. More are given up after the next failed probe."""

Settlement = tuple[DeliveryClaim, DeliveryAttempt, bool, int | None, AttemptOutcome | None, int]
"""Delivery, attempt, whether delivered, milliseconds to the retry, outcome for the receiver, `give_up_after_ms`."""


class _Known(Struct, frozen=True):
    """The stored health of a flow or of a host."""

    record: HealthRecord
    suspects: str = ""
    """Of a host only. In the stored form, so that it can be compared with the database."""


_Step = tuple[_Known, _Known]
"""The health before an attempt and after it."""


class _Stored(Struct, frozen=True):
    """The health of flows and of their hosts, by name."""

    flows: dict[str, _Known]
    hosts: dict[str, _Known]


class _Level(Protocol):
    """How attempts change health at one level: that of flows or that of hosts."""

    def name(self, delivery: DeliveryClaim) -> str:
        """The flow or host of a delivery."""

    def stored(self, found: _Stored) -> dict[str, _Known]:
        """The health of flows or that of hosts."""

    def after(self, old: _Known, delivery: DeliveryClaim, outcome: AttemptOutcome | None, now: int) -> _Known:
        """The health after an attempt."""

    def write(self, transaction: Transaction, name: str, old: _Known, new: _Known) -> bool:
        """Store the new health; False if the database no longer has the old one."""


class _FlowLevel:
    def name(self, delivery: DeliveryClaim) -> str:
        return delivery.flow

    def stored(self, found: _Stored) -> dict[str, _Known]:
        return found.flows

    def after(self, old: _Known, delivery: DeliveryClaim, outcome: AttemptOutcome | None, now: int) -> _Known:
        return _Known(next_health(old.record, outcome, now, probe=delivery.health is ReceiverHealth.OPEN))

    def write(self, transaction: Transaction, name: str, old: _Known, new: _Known) -> bool:
        row = {"flow": name, **_columns(new.record), **_columns(old.record, "seen_")}
        return transaction.change("update_flow_health", row) > 0


class _HostLevel:
    def name(self, delivery: DeliveryClaim) -> str:
        return delivery.host

    def stored(self, found: _Stored) -> dict[str, _Known]:
        return found.hosts

    def after(self, old: _Known, delivery: DeliveryClaim, outcome: AttemptOutcome | None, now: int) -> _Known:
        probe = delivery.health is ReceiverHealth.OPEN
        suspects = frozenset(old.suspects.split())
        record, suspects = next_host_health(old.record, suspects, outcome, delivery.flow, now, probe=probe)
        return _Known(record, " ".join(sorted(suspects)))

    def write(self, transaction: Transaction, name: str, old: _Known, new: _Known) -> bool:
        row = {"host": name, **_columns(new.record), **_columns(old.record, "seen_")}
        return transaction.change("update_host_health", row | {"suspects": new.suspects, "seen_suspects": old.suspects}) > 0


_FLOWS = _FlowLevel()
_HOSTS = _HostLevel()


def update_all(transaction: Transaction, batch: Sequence[Settlement]) -> list[Settled]:
    """Update the health of flows and hosts after attempts; nothing is written for a health that does not change."""
    found = _read(transaction, batch)
    flows = _update(transaction, batch, found, _FLOWS)
    hosts = _update(transaction, batch, found, _HOSTS)
    settled: list[Settled] = []
    for (delivery, *_, give_up_after_ms), flow, host in zip(batch, flows, hosts, strict=True):
        if flow is None or host is None:
            settled.append(Settled(held=True))
            continue
        given_up = sum(len(one.given_up) for one in settled)
        settled.append(_settled(transaction, delivery, flow, host, give_up_after_ms, _MAX_GIVEN_UP - given_up))
    changed_flows = _changed(batch, flows, _FLOWS)
    changed_hosts = _changed(batch, hosts, _HOSTS)
    recovered = [host for host, (old, new) in changed_hosts.items() if _is_open(old) and not _is_open(new)]
    if recovered:
        transaction.change("probe_flows_of_hosts", {"now": transaction.now, "hosts": recovered})
    if changed_flows or changed_hosts:
        touched = changed_hosts.keys() | {one[0].host for one in batch if one[0].flow in changed_flows}
        schedule_next(transaction, [], list(changed_flows), list(touched))
        transaction.topics.add(Topic.DELIVERY)
    return settled


def _read(transaction: Transaction, batch: Iterable[Settlement]) -> _Stored:
    """The health of the flows of a batch and of their hosts."""
    found = _Stored({}, {})
    for row in transaction.all("health_of_flows", (list({one[0].flow for one in batch}),)):
        flow, health, failures, since, until, host, host_health, host_failures, host_since, host_until, suspects = row
        found.flows[flow] = _Known(HealthRecord(ReceiverHealth(health), failures, since, until))
        record = HealthRecord(ReceiverHealth(host_health), host_failures, host_since, host_until)
        found.hosts[host] = _Known(record, suspects)
    return found


def _update(transaction: Transaction, batch: Sequence[Settlement], found: _Stored, level: _Level) -> list[_Step | None]:
    """Store the health after all attempts. Returns the change by each attempt; None if its receiver has no stored health.

    A health that another process has changed since it was read is read again, and the attempts are applied to it anew.
    """
    steps: list[_Step | None] = [None] * len(batch)
    indices: Sequence[int] = range(len(batch))
    while True:
        stored = level.stored(found)
        health = dict(stored)
        for index in indices:
            delivery, _, _, _, outcome, _ = batch[index]
            name = level.name(delivery)
            old = health.get(name)
            steps[index] = None
            if old is not None:
                health[name] = level.after(old, delivery, outcome, transaction.now)
                steps[index] = old, health[name]
        lost = {
            name
            for name, new in sorted(health.items())
            if new != stored[name] and not level.write(transaction, name, stored[name], new)
        }
        if not lost:
            return steps
        indices = [index for index in indices if level.name(batch[index][0]) in lost]
        found = _read(transaction, [batch[index] for index in indices])


def _changed(batch: Sequence[Settlement], steps: Sequence[_Step | None], level: _Level) -> dict[str, _Step]:
    """The receivers whose health differs from that before the batch."""
    ends: dict[str, _Step] = {}
    for settlement, step in zip(batch, steps, strict=True):
        if step is not None:
            name = level.name(settlement[0])
            ends[name] = ends.get(name, step)[0], step[1]
    return {name: (old, new) for name, (old, new) in ends.items() if old != new}


def _is_open(known: _Known) -> bool:
    return known.record.health is ReceiverHealth.OPEN


def _settled(
    transaction: Transaction, delivery: DeliveryClaim, flow: _Step, host: _Step, give_up_after_ms: int, limit: int
) -> Settled:
    now = transaction.now
    (old_flow, new_flow), (old_host, new_host) = [(old.record, new.record) for old, new in (flow, host)]
    given_up: tuple[DeliveryClaim, ...] = ()
    if _has_failed_since(new_host, old_host, now - give_up_after_ms):
        given_up = _give_up(transaction, delivery.host, None, now - give_up_after_ms, limit)
    elif _has_failed_since(new_flow, old_flow, now - give_up_after_ms):
        given_up = _give_up(transaction, delivery.host, delivery.flow, now - give_up_after_ms, limit)
    until = max(new_flow.open_until or now, new_host.open_until or now)
    return Settled(
        held=True,
        flow_change=_health_change(old_flow, new_flow),
        host_change=_health_change(old_host, new_host),
        pause=(until - now) / 1000,
        given_up=given_up,
    )


def _health_change(old: HealthRecord, new: HealthRecord) -> tuple[ReceiverHealth, ReceiverHealth] | None:
    return None if new.health is old.health else (old.health, new.health)


def _has_failed_since(new: HealthRecord, old: HealthRecord, since: int) -> bool:
    """Whether the receiver has just failed again, and has been failing since this time or longer."""
    return new.health is ReceiverHealth.OPEN and new != old and new.failing_since is not None and new.failing_since <= since


def _give_up(transaction: Transaction, host: str, flow: str | None, before: int, limit: int) -> tuple[DeliveryClaim, ...]:
    """Give up webhooks that have been due for a whole schedule at a receiver that has failed all that time."""
    parameters = {"host": host, "flow": flow, "now": transaction.now, "before": before, "limit": limit}
    given_up = tuple(
        DeliveryClaim(delivery_id, 0, url, host, attempt, key, format_request_id(key, tail), flow=its_flow)
        for delivery_id, url, attempt, its_flow, key, tail in transaction.all("give_up_deliveries", parameters)
    )
    not_sent = DeliveryAttempt(transaction.now, 0.0, None, NOT_TRIED_AGAIN)
    transaction.rows("insert_delivery_attempts", [attempt_row(delivery, not_sent) for delivery in given_up])
    return given_up


def attempt_row(delivery: DeliveryClaim, attempt: DeliveryAttempt) -> tuple[Any, ...]:
    """The columns of the block `insert_delivery_attempts`."""
    error = None if attempt.error is None else clean(attempt.error)
    return delivery.id, delivery.attempt, attempt.at, attempt.duration, attempt.status, error, attempt.response_body


def _columns(health: HealthRecord, prefix: str = "") -> dict[str, Any]:
    return {
        prefix + "health": health.health,
        prefix + "failures": health.failures,
        prefix + "failing_since": health.failing_since,
        prefix + "open_until": health.open_until,
    }


def schedule_next(transaction: Transaction, served: Collection[str], flows: Collection[str], hosts: Collection[str]) -> None:
    """Recompute `next_at` of flows, then of hosts. `served` are flows of which a delivery has just been claimed."""
    for names, earliest in ((served, transaction.now), (flows, 0)):
        if names:
            row = {"now": transaction.now, "earliest": earliest, "flows": list(names)}
            transaction.change("schedule_flows", row)
    if hosts:
        transaction.change("schedule_hosts", {"now": transaction.now, "hosts": list(hosts)})
