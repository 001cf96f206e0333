"""The nouns of webhooks: what is to be delivered, to whom, and how it went. Times are integer milliseconds since 1970, UTC."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from .models import Result, WebhookKind
from .value import Value


class DeliveryState(StrEnum):
    """Where a webhook stands. The last three are final, until somebody asks for it to be delivered again."""

    WAITING = "waiting"
    """For an earlier webhook of the same request."""
    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    SUPERSEDED = "superseded"
    """It had failed, and then there was newer news of the same request."""
    DEAD = "dead"


class Standing(StrEnum):
    """What we know of a host that webhooks go to; `circuit` is the law of it."""

    NEW = "new"
    GOOD = "good"
    SLOW = "slow"
    FAILING = "failing"
    OPEN = "open"
    """Nothing is sent but a probe now and then."""


class DeliveryEvent(StrEnum):
    """What can happen to a webhook delivery."""

    CLAIM = "claim"
    SUCCEED = "succeed"
    RETRY = "retry"
    EXHAUST = "exhaust"
    RELEASE = "release"
    LOSE = "lose"
    FOLLOW = "follow"
    """What it waited for has ended."""
    SUPERSEDE = "supersede"
    """It has failed, and there is newer news of the same request."""
    GIVE_UP = "give_up"
    """Its host has been failing for as long as the whole schedule takes."""
    REDELIVER = "redeliver"


DELIVERY: dict[tuple[DeliveryState, DeliveryEvent], DeliveryState] = {
    (DeliveryState.WAITING, DeliveryEvent.FOLLOW): DeliveryState.PENDING,
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


class Delivery(Value, frozen=True):
    """The right to make one attempt to deliver a webhook."""

    id: int
    token: int
    url: str
    host: str
    attempt: int
    """1 for the first."""
    key: int
    request_id: str
    spent: int = 0
    """Attempts that do not count by the schedule: those before it was asked to be delivered again."""
    kind: WebhookKind = WebhookKind.COMPLETED
    number: int = 0
    """From 1 for what is told of a request before its end."""
    data: str | None = None
    """What there is to tell, as JSON; of the end it is the `Result`."""
    standing: Standing = Standing.NEW
    """Of its flow, when the attempt was given out; `OPEN`, of the flow or of its host, makes it a probe."""
    flow: str = ""
    """The webhooks that it takes turns with those of others for: those of one submitter to one host."""

    @property
    def webhook_id(self) -> str:
        """The same over all attempts, and of no other webhook."""
        return f"{self.request_id}_{self.number}" if self.number else self.request_id

    @property
    def tries(self) -> int:
        """Which attempt of the schedule this is, 1 for the first."""
        return self.attempt - self.spent


class Room(Value, frozen=True):
    """How many attempts to deliver may be begun now, in this process."""

    limit: int
    strangers: int
    """How many of them for flows that are not known to be well."""
    busy: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Attempts on their way, by flow."""


class Claimed(Value, frozen=True):
    """Deliveries that were given out, and when it is worth asking again."""

    deliveries: list[Delivery]
    results: Mapping[int, Result] = msgspec.field(default_factory=dict)
    """By key, for those that tell of the end; without the parts of long answers. One whose result is gone has none."""
    next_in: float | None = None
    """Seconds until another host has something due; None when none has."""
    full: bool = False
    """Whether more is due than there was room for, whatever the host."""
    held_back: frozenset[str] = frozenset()
    """Hosts that have more due than one host may get at once."""


class Attempt(Value, frozen=True):
    """How one attempt to deliver went."""

    at: int
    duration: float
    """Seconds."""
    status: int | None
    """None where no answer came."""
    error: str | None
    answer: bytes = b""
    """At most 1 KiB, for the operator only."""


class DeliveryRecord(Value, frozen=True):
    """A webhook as its operator may see it."""

    id: int
    request_id: str
    kind: WebhookKind
    host: str
    url: str
    state: DeliveryState
    attempts: int
    """How many were begun."""
    since: int
    """When it was first due, or was asked to be delivered again."""
    due_at: int
    """When the next attempt is due; of one that has ended, when it ended."""


class DeliveryFilter(Value, frozen=True):
    """Selects the deliveries that match all fields which are not None."""

    request_id: str | None = None
    delivery_id: int | None = None
    since: int | None = None
    until: int | None = None
    """First due at `since` or later and before `until`."""
    host: str | None = None
    dead_only: bool | None = None
    """Only those that were given up."""


class Settled(Value, frozen=True):
    """What followed from an attempt. False where the delivery was no longer held, and nothing was changed."""

    held: bool
    superseded: bool = False
    """It had failed, and is not tried again because there is newer news of the same request."""
    change: tuple[Standing, Standing] | None = None
    """The standing of its flow before and after, where this attempt has changed it."""
    of_host: tuple[Standing, Standing] | None = None
    """The same of its host as a whole."""
    pause: float = 0.0
    """Seconds until there is another probe, where one of the two is `OPEN`."""
    given_up: tuple[Delivery, ...] = ()
    """Others of the same flow or host that are dead now, because it has been failing for as long as `circuit.patience`."""

    def __bool__(self) -> bool:
        return self.held


class Receiver(Value, frozen=True):
    """A host that webhooks of one submitter go to, as the operator may see it."""

    host: str
    standing: Standing
    failures: int
    """In a row."""
    failing_since: int | None
    held_until: int | None
    """When the next probe may be sent; only where it is `OPEN`."""
    pending: int
    """Webhooks of the submitter that wait for it; counted up to 1,000."""
    submitter: str = ""
    """See `models.NewJob.client`."""
