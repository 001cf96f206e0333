"""The nouns of webhooks: what is to be delivered, to whom, and how it went. Times are integer milliseconds since 1970, UTC."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .hosts import origin_of
from .models import DeliveryState, Result, Standing, WebhookKind
from .value import Value


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


class Which(Value, frozen=True):
    """Some webhooks: those of one request, or one of them, or those of a time and a host."""

    request_id: str | None = None
    delivery_id: int | None = None
    since: int | None = None
    until: int | None = None
    """First due from `since` on and before `until`."""
    host: str | None = None
    dead: bool = False
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


def receiver_host(url: str) -> str:
    """The name under which a receiver is stored: its canonical host, and the port unless it is the default of the scheme."""
    origin = origin_of(url)
    return url.lower() if origin is None else origin.netloc
