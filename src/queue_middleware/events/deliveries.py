"""The events of webhooks. `queue_middleware.events` exports them."""

from __future__ import annotations

from queue_middleware.jobs.models import WebhookKind
from queue_middleware.jobs.struct import Struct


class _DeliveryEvent(Struct, frozen=True):
    """An event of one attempt to deliver a webhook; the first attempt has number 1."""

    delivery_id: int
    request_id: str
    kind: WebhookKind
    host: str
    attempt: int


class Delivered(_DeliveryEvent, frozen=True):
    """A receiver accepted a webhook after `duration`, and `lag` after it was first due or was redelivered."""

    status: int | None
    duration: float
    lag: float


class DeliveryFailed(_DeliveryEvent, frozen=True):
    """A delivery attempt failed. `status` is None without a response; `retry_in` is None if there is no further attempt.

    `cause` is one of `response`, `timeout`, `connection`, `refused` (by the outbound guard), and `not_sent` for other reasons.
    """

    status: int | None
    cause: str
    error: str
    duration: float
    retry_in: float | None


class DeliveryDead(_DeliveryEvent, frozen=True):
    """A webhook was given up after the last `error`. It is kept and can be redelivered."""

    error: str


class CircuitOpened(Struct, frozen=True):
    """Webhooks to a host fail, so only probes are sent, the first in `probe_in` seconds.

    If `submitter` is not None, this applies only to the webhooks of that submitter.
    """

    host: str
    probe_in: float
    submitter: str | None = None


class CircuitClosed(Struct, frozen=True):
    """A host accepts webhooks again, and those that waited are sent. `submitter` has the same meaning as in `CircuitOpened`."""

    host: str
    submitter: str | None = None
