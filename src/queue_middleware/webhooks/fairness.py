"""Shares the attempts that a process may make at once between receivers, so that a slow one does not delay the others. Pure.

A receiver that is not known to be healthy gets few attempts at once, and all of these together leave a part of the slots to
healthy ones. Each host is bounded as a whole, whatever the number of its flows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from queue_middleware.jobs.struct import Struct

from .models import Capacity, DeliveryClaim, ReceiverHealth

UNPROVEN_SHARE = 0.75
"""Share of the slots that receivers not known to be healthy may take, so that healthy ones never wait for them."""
FLOW_LIMITS: dict[ReceiverHealth, int] = {
    ReceiverHealth.NEW: 1,
    ReceiverHealth.HEALTHY: 16,
    ReceiverHealth.SLOW: 4,
    ReceiverHealth.FAILING: 1,
    ReceiverHealth.OPEN: 1,
}
"""Attempts of one flow at once, in one process. A probe is the only attempt over all processes."""
MAX_FLOW_LIMIT = max(FLOW_LIMITS.values())
HOST_LIMITS: dict[ReceiverHealth, int] = {
    ReceiverHealth.NEW: 8,
    ReceiverHealth.HEALTHY: 32,
    ReceiverHealth.SLOW: 8,
    ReceiverHealth.FAILING: 1,
    ReceiverHealth.OPEN: 1,
}
"""Attempts to one host at once, in one process.

At least those of one flow; while deliveries to the host arrive, more, so that a flow that hangs leaves slots to the others.
"""


class DueFlow(Struct, frozen=True):
    """A flow with due deliveries."""

    flow: str
    health: ReceiverHealth
    due: int
    """How many; counted only up to `MAX_FLOW_LIMIT + 1`."""
    host: str = ""
    host_health: ReceiverHealth = ReceiverHealth.HEALTHY
    """The health of its host as a whole."""


class Allocation(Struct, frozen=True):
    """How many deliveries each flow may start."""

    by_flow: dict[str, int]
    full: bool
    """Whether the slots were too few for what was due."""
    limited_hosts: frozenset[str]
    """Hosts that have more due, but whose flow or host is at its limit. Hosts with an open circuit are not included."""


def allocate(capacity: Capacity, flows: Iterable[DueFlow]) -> Allocation:
    """Give each flow as many as it and its host may have, in the order given, until the capacity is used up."""
    left, unproven = capacity.limit, capacity.unproven
    shares: dict[str, int] = {}
    limited_hosts: set[str] = set()
    full = False
    at_host = Counter[str]()
    for flow, count in capacity.busy.items():
        at_host[host_of_flow(flow)] += count
    for one in flows:
        healthy = one.health is ReceiverHealth.HEALTHY
        allowed = min(
            FLOW_LIMITS[one.health] - capacity.busy.get(one.flow, 0), HOST_LIMITS[one.host_health] - at_host[one.host]
        )
        fits = left if healthy else min(left, unproven)
        count = max(0, min(allowed, fits, one.due))
        full = full or fits < min(allowed, one.due)
        if allowed < one.due and ReceiverHealth.OPEN not in (one.health, one.host_health):
            limited_hosts.add(one.host)
        if count:
            shares[one.flow] = count
            at_host[one.host] += count
            left -= count
            unproven -= 0 if healthy else count
    return Allocation(shares, full, frozenset(limited_hosts))


def host_of_flow(flow: str) -> str:
    """The host in the name of a flow, which is the host, a space, and the submitter."""
    return flow.partition(" ")[0]


def submitter_of_flow(flow: str) -> str:
    """The submitter in the name of a flow."""
    return flow.partition(" ")[2]


class DispatchSlots:
    """The running attempts of this process, at most `limit`, by flow."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._max_unproven = max(1, int(limit * UNPROVEN_SHARE))
        self._busy: Counter[str] = Counter()
        self._at_host: Counter[str] = Counter()
        self._taken: set[int] = set()
        self._unproven = 0

    def free(self) -> Capacity | None:
        """What may be started now; None if nothing."""
        if len(self._taken) >= self._limit:
            return None
        return Capacity(self._limit - len(self._taken), max(0, self._max_unproven - self._unproven), dict(self._busy))

    def has_room(self, flow: str, host: str) -> bool:
        """Whether another attempt may start at a flow and a host that are healthy."""
        return (
            len(self._taken) < self._limit
            and self._busy[flow] < FLOW_LIMITS[ReceiverHealth.HEALTHY]
            and self._at_host[host] < HOST_LIMITS[ReceiverHealth.HEALTHY]
        )

    def take(self, delivery: DeliveryClaim) -> None:
        """An attempt starts."""
        self._taken.add(delivery.token)
        self._busy[delivery.flow] += 1
        self._at_host[delivery.host] += 1
        self._unproven += delivery.health is not ReceiverHealth.HEALTHY

    def give_back(self, delivery: DeliveryClaim) -> bool:
        """An attempt has its response, or will not get one. False if its slot was given back before."""
        if delivery.token not in self._taken:
            return False
        self._taken.remove(delivery.token)
        self._busy[delivery.flow] -= 1
        if not self._busy[delivery.flow]:
            del self._busy[delivery.flow]
        self._at_host[delivery.host] -= 1
        if not self._at_host[delivery.host]:
            del self._at_host[delivery.host]
        self._unproven -= delivery.health is not ReceiverHealth.HEALTHY
        return True
