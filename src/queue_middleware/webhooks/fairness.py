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

_MAX_AT_FLOW, _MAX_AT_HOST = FLOW_LIMITS[ReceiverHealth.HEALTHY], HOST_LIMITS[ReceiverHealth.HEALTHY]
AHEAD = 64
"""Deliveries to one host that are claimed while all slots of their flow are taken, if its responses are quick.

A claim takes as long as several quick responses, so without this most slots would be free most of the time; and one claim of
many costs much less than many claims.
"""
AHEAD_SHARE = 0.5
"""Share of the slots of a process up to which deliveries are claimed ahead, so that those of other flows are never delayed."""
MAX_CLAIM = _MAX_AT_FLOW + AHEAD
"""Deliveries of one flow that one claim starts, at most."""
QUICK_SECONDS = 0.1
"""Seconds within which a response is quick. What is claimed ahead waits for a few of them, and no other process can send it."""


class DueFlow(Struct, frozen=True):
    """A flow with due deliveries."""

    flow: str
    health: ReceiverHealth
    due: int
    """How many; counted only up to `MAX_CLAIM + 1`."""
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
    claimed = sum(capacity.busy.values())
    left_ahead = int((capacity.limit + claimed) * AHEAD_SHARE) - claimed
    at_host, waiting_at_host = Counter[str](), Counter[str]()
    for flow, count in capacity.busy.items():
        at_host[host_of_flow(flow)] += min(count, _MAX_AT_FLOW)
        waiting_at_host[host_of_flow(flow)] += max(0, count - _MAX_AT_FLOW)
    for one in flows:
        healthy = one.health is ReceiverHealth.HEALTHY
        slots = min(FLOW_LIMITS[one.health] - capacity.busy.get(one.flow, 0), HOST_LIMITS[one.host_health] - at_host[one.host])
        slots, ahead = max(0, slots), 0
        if healthy and one.host_health is ReceiverHealth.HEALTHY and one.flow in capacity.quick:
            ahead = max(0, min(AHEAD - waiting_at_host[one.host], left_ahead - slots))
        allowed = slots + ahead
        fits = left if healthy else min(left, unproven)
        count = max(0, min(allowed, fits, one.due))
        full = full or fits < min(allowed, one.due)
        if allowed < one.due and ReceiverHealth.OPEN not in (one.health, one.host_health):
            limited_hosts.add(one.host)
        if count:
            shares[one.flow] = count
            at_host[one.host] += min(count, slots)
            waiting_at_host[one.host] += count - min(count, slots)
            left -= count
            left_ahead -= count
            unproven -= 0 if healthy else count
    return Allocation(shares, full, frozenset(limited_hosts))


def flow_of(host: str, submitter: str) -> str:
    """The name of a flow: the host, a space, and the submitter. The store makes it in the same way (`sql/queries.sql`)."""
    return f"{host} {submitter}"


def host_of_flow(flow: str) -> str:
    """The host in the name of a flow."""
    return flow.partition(" ")[0]


def submitter_of_flow(flow: str) -> str:
    """The submitter in the name of a flow."""
    return flow.partition(" ")[2]


class DispatchSlots:
    """The deliveries that this process has claimed, at most `limit`: running attempts, and those that wait for a slot."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._max_unproven = max(1, int(limit * UNPROVEN_SHARE))
        self._claimed: dict[int, bool] = {}
        """Tokens, and whether the attempt is running."""
        self._unproven = 0
        self._at_flow = _Counts()
        self._at_host = _Counts()
        self._running = 0
        self._quick: set[str] = set()
        """Flows whose last response was quick."""

    def free(self) -> Capacity | None:
        """What may be claimed now; None if nothing."""
        if len(self._claimed) >= self._limit:
            return None
        unproven = max(0, self._max_unproven - self._unproven)
        quick = frozenset(self._quick if self._may_claim_ahead() else ())
        return Capacity(self._limit - len(self._claimed), unproven, dict(self._at_flow.claimed), quick)

    def _may_claim_ahead(self) -> bool:
        return len(self._claimed) < self._limit * AHEAD_SHARE

    def has_room(self, flow: str, host: str) -> bool:
        """Whether one more may be claimed of a healthy flow and host."""
        if len(self._claimed) >= self._limit:
            return False
        if self._at_flow.claimed[flow] < _MAX_AT_FLOW and self._at_host.claimed[host] < _MAX_AT_HOST:
            return True
        waiting = self._at_host.claimed[host] - self._at_host.running[host]
        return flow in self._quick and waiting < AHEAD and self._may_claim_ahead()

    def take(self, delivery: DeliveryClaim) -> None:
        """A delivery is claimed, or about to be."""
        self._claimed[delivery.token] = False
        self._at_flow.claimed[delivery.flow] += 1
        self._at_host.claimed[delivery.host] += 1
        self._unproven += delivery.health is not ReceiverHealth.HEALTHY

    def begin(self, delivery: DeliveryClaim) -> bool:
        """Start the attempt of a claimed delivery, if the running ones leave a slot for it."""
        flow, host = delivery.flow, delivery.host
        if (
            self._running >= self._limit
            or self._at_flow.running[flow] >= _MAX_AT_FLOW
            or self._at_host.running[host] >= _MAX_AT_HOST
        ):
            return False
        self._claimed[delivery.token] = True
        self._running += 1
        self._at_flow.running[flow] += 1
        self._at_host.running[host] += 1
        return True

    def give_back(self, delivery: DeliveryClaim, *, quick: bool = False) -> bool:
        """An attempt has its response, or will not get one. False if its slot was given back before."""
        running = self._claimed.pop(delivery.token, None)
        if running is None:
            return False
        self._running -= running
        self._unproven -= delivery.health is not ReceiverHealth.HEALTHY
        self._at_host.subtract(delivery.host, running)
        self._at_flow.subtract(delivery.flow, running)
        if not running:
            return True  # nothing was sent, so nothing is known about the receiver
        if not quick:
            self._quick.discard(delivery.flow)
        elif len(self._quick) < self._limit:
            self._quick.add(delivery.flow)
        else:
            self._quick = {delivery.flow}  # it is known of the others again after their next response
        return True


class _Counts:
    """Deliveries by flow, or by host. What has none is not kept."""

    def __init__(self) -> None:
        self.claimed: Counter[str] = Counter()
        self.running: Counter[str] = Counter()

    def subtract(self, name: str, running: bool) -> None:
        """One less."""
        for counter, by in ((self.claimed, 1), (self.running, int(running))):
            counter[name] -= by
            if not counter[name]:
                del counter[name]
