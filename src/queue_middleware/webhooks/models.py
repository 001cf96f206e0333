"""Values and states of webhooks: deliveries, attempts, receivers. Times are integer milliseconds since 1970, UTC."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache

import msgspec

from queue_middleware.jobs.models import JobResult, WebhookKind
from queue_middleware.jobs.struct import Struct
from queue_middleware.syntax.hosts import origin_of


class DeliveryState(StrEnum):
    """State of a delivery. The last three are final, unless it is redelivered."""

    BLOCKED = "blocked"
    """Blocked by an earlier webhook of the same request."""
    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    SUPERSEDED = "superseded"
    """An attempt had failed, and a newer webhook of the same request made it obsolete."""
    DEAD = "dead"


class ReceiverHealth(StrEnum):
    """Health of a receiver, by the rules in `circuit`."""

    NEW = "new"
    HEALTHY = "healthy"
    SLOW = "slow"
    FAILING = "failing"
    OPEN = "open"
    """The circuit is open: only probes are sent."""


class DeliveryEvent(StrEnum):
    """What can happen to a delivery."""

    CLAIM = "claim"
    SUCCEED = "succeed"
    RETRY = "retry"
    EXHAUST = "exhaust"
    RELEASE = "release"
    LOSE = "lose"
    UNBLOCK = "unblock"
    """The webhook that blocked it has ended."""
    SUPERSEDE = "supersede"
    """An attempt has failed, and there is a newer webhook of the same request."""
    GIVE_UP = "give_up"
    """Its receiver has been failing for as long as the whole retry schedule takes."""
    REDELIVER = "redeliver"


DELIVERY_TRANSITIONS: dict[tuple[DeliveryState, DeliveryEvent], DeliveryState] = {
    (DeliveryState.BLOCKED, DeliveryEvent.UNBLOCK): DeliveryState.PENDING,
    (DeliveryState.PENDING, DeliveryEvent.CLAIM): DeliveryState.SENDING,
    (DeliveryState.PENDING, DeliveryEvent.SUPERSEDE): DeliveryState.SUPERSEDED,
    (DeliveryState.PENDING, DeliveryEvent.GIVE_UP): DeliveryState.DEAD,
    (DeliveryState.SENDING, DeliveryEvent.SUCCEED): DeliveryState.DELIVERED,
    (DeliveryState.SENDING, DeliveryEvent.RETRY): DeliveryState.PENDING,
    (DeliveryState.SENDING, DeliveryEvent.EXHAUST): DeliveryState.DEAD,
    (DeliveryState.SENDING, DeliveryEvent.RELEASE): DeliveryState.PENDING,
    (DeliveryState.SENDING, DeliveryEvent.LOSE): DeliveryState.PENDING,
    (DeliveryState.SENDING, DeliveryEvent.SUPERSEDE): DeliveryState.SUPERSEDED,
    (DeliveryState.DELIVERED, DeliveryEvent.REDELIVER): DeliveryState.PENDING,
    (DeliveryState.SUPERSEDED, DeliveryEvent.REDELIVER): DeliveryState.PENDING,
    (DeliveryState.DEAD, DeliveryEvent.REDELIVER): DeliveryState.PENDING,
}
"""All transitions; no other combination happens. Stores execute them in SQL, which the store suite compares with this."""


class DeliveryClaim(Struct, frozen=True):
    """The right to make one attempt to deliver a webhook."""

    id: int
    token: int
    url: str
    host: str
    attempt: int
    """1 for the first."""
    key: int
    request_id: str
    attempts_before_redelivery: int = 0
    """Attempts before it was redelivered, which do not count in the schedule."""
    kind: WebhookKind = WebhookKind.COMPLETED
    number: int = 0
    """From 1 for events before the end of a request; 0 for the end."""
    data: str | None = None
    """The event as JSON; None for the end, which is reported from the `JobResult`."""
    health: ReceiverHealth = ReceiverHealth.NEW
    """Health of the flow when the attempt was claimed. The attempt is a probe if it, or the health of the host, was `OPEN`."""
    flow: str = ""
    """The webhooks of one submitter to one host, which share attempts with other flows."""
    since: int = 0
    """As in `DeliveryRecord.since`."""
    trace: str | None = None
    """`Claim.trace`, if the delivery was claimed in the transaction that completed the job."""

    @property
    def webhook_id(self) -> str:
        """The same in all attempts of this webhook, and different from that of any other."""
        return f"{self.request_id}_{self.number}" if self.number else self.request_id

    @property
    def tries(self) -> int:
        """The number of this attempt in the schedule, 1 for the first."""
        return self.attempt - self.attempts_before_redelivery


class Capacity(Struct, frozen=True):
    """How many attempts this process may start now."""

    limit: int
    unproven: int
    """How many of them for flows that are not known to be healthy."""
    busy: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Claimed deliveries by flow: running attempts, and those that wait for one to end."""
    quick: frozenset[str] = frozenset()
    """Flows of which more than the limits may be claimed while they and their hosts are healthy: `fairness.AHEAD` of a host."""


class Claimed(Struct, frozen=True):
    """Claimed deliveries, and when to claim again."""

    deliveries: list[DeliveryClaim]
    results: Mapping[int, JobResult] = msgspec.field(default_factory=dict)
    """By job key, for webhooks about the end; without the stored chunks of long responses. Deleted results are missing."""
    next_in: float | None = None
    """Seconds until more is due for other hosts; None if nothing is."""
    full: bool = False
    """Whether more is due than the free slots of the process."""
    limited_hosts: frozenset[str] = frozenset()
    """Hosts that have more due, but whose flow or host is at its limit. Hosts with an open circuit are not included."""


class DeliveryAttempt(Struct, frozen=True):
    """One attempt to deliver a webhook."""

    at: int
    duration: float
    """Seconds."""
    status: int | None
    """HTTP status of the response; None without a response."""
    error: str | None
    response_body: bytes = b""
    """The start of the response body, at most 1 KiB, for the operator only."""


class DeliveryRecord(Struct, frozen=True):
    """A delivery as the operator sees it."""

    id: int
    request_id: str
    kind: WebhookKind
    host: str
    url: str
    state: DeliveryState
    attempts: int
    """How many were started."""
    since: int
    """When it was first due, or was redelivered."""
    due_at: int
    """When the next attempt is due; in a final state, when it ended."""


class DeliveryFilter(Struct, frozen=True):
    """Selects the deliveries that match all fields which are not None."""

    request_id: str | None = None
    delivery_id: int | None = None
    since: int | None = None
    until: int | None = None
    """First due at `since` or later and before `until`."""
    host: str | None = None
    dead_only: bool | None = None
    """Only those that were given up."""


class Settled(Struct, frozen=True):
    """What followed from an attempt. False if another process had taken over the delivery; then nothing was changed."""

    held: bool
    superseded: bool = False
    """The attempt failed and is the last, because there is a newer webhook of the same request."""
    flow_change: tuple[ReceiverHealth, ReceiverHealth] | None = None
    """Health of the flow before and after, if this attempt changed it."""
    host_change: tuple[ReceiverHealth, ReceiverHealth] | None = None
    """Health of the host as a whole before and after, if this attempt changed it."""
    pause: float = 0.0
    """Seconds until the next probe, if one of the two is `OPEN`."""
    given_up: tuple[DeliveryClaim, ...] = ()
    """Other deliveries of the flow or host that are dead now, because it has been failing for `circuit.give_up_after`."""

    def __bool__(self) -> bool:
        return self.held


class FlowRecord(Struct, frozen=True):
    """A flow, the webhooks of one submitter to one host, as the operator sees it."""

    host: str
    health: ReceiverHealth
    failures: int
    """In a row."""
    failing_since: int | None
    open_until: int | None
    """When the next probe may be sent; only if `OPEN`."""
    pending: int
    """Deliveries of the submitter that are not sent yet; counted up to 1,000."""
    submitter: str = ""
    """The submitter: `id:` and an identity, or an address (`NewJob.client`)."""


@lru_cache(maxsize=512)
def receiver_host(url: str) -> str:
    """The name under which a receiver is stored: its canonical host, and the port unless it is the default of the scheme."""
    origin = origin_of(url)
    return url.lower() if origin is None else origin.netloc
