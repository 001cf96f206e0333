"""The operator's view of webhooks: list deliveries, attempts and receivers, and deliver again."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from queue_middleware.errors import BadRequest
from queue_middleware.events import Emit, Redelivered
from queue_middleware.jobs.models import WebhookKind
from queue_middleware.syntax.hosts import canonical_authority
from queue_middleware.syntax.times import milliseconds_of

from .models import DeliveryAttempt, DeliveryFilter, DeliveryRecord, FlowRecord, ReceiverHealth
from .store import WebhookStore

UNHEALTHY = (ReceiverHealth.OPEN, ReceiverHealth.FAILING, ReceiverHealth.SLOW)
_BATCH = 500
"""Deliveries in one transaction."""


def make_filter(
    *,
    request_id: str | None = None,
    delivery_id: int | None = None,
    host: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    dead_only: bool | None = None,
) -> DeliveryFilter:
    """The deliveries that match all arguments which are not None; `since` and `until` need a time zone. Raises `BadRequest`."""
    return DeliveryFilter(
        request_id=request_id,
        delivery_id=delivery_id,
        since=None if since is None else milliseconds_of("since", since),
        until=None if until is None else milliseconds_of("until", until),
        host=None if host is None else canonical_authority(host),
        dead_only=dead_only,
    )


class WebhookAdmin:
    """The operations behind `queue.deliveries`, `queue.redeliver` and the like."""

    def __init__(self, outbox: WebhookStore, emit: Emit) -> None:
        self._outbox = outbox
        self._emit = emit

    async def deliveries(self, criteria: DeliveryFilter, *, after: int = 0, limit: int = 100) -> list[DeliveryRecord]:
        """The oldest `limit` matching deliveries with an id larger than `after`. Raises `UnknownRequest`."""
        return await self._outbox.records(criteria, after=after, limit=limit)

    async def attempts(self, delivery_id: int) -> list[DeliveryAttempt]:
        """The recorded attempts of a delivery."""
        return await self._outbox.attempts(delivery_id)

    async def receivers(self, healths: Collection[ReceiverHealth] = UNHEALTHY, limit: int = 1000) -> list[FlowRecord]:
        """Flows in these states of health."""
        return await self._outbox.receivers(healths, limit)

    async def redeliver(self, criteria: DeliveryFilter) -> int:
        """Deliver again, each with its whole schedule. Returns how many. Raises `BadRequest`, `UnknownRequest`.

        Unless `dead_only` is set, deliveries of a request or a delivery that is named are delivered again in any state, others
        only if they were given up.
        """
        is_named = criteria.request_id is not None or criteria.delivery_id is not None
        if not is_named and criteria.host is None and criteria.since is None and criteria.until is None:
            raise BadRequest("no webhooks are selected; pass request_id, delivery_id, host, since or until")
        if criteria.dead_only is None:
            criteria = criteria.replace(dead_only=not is_named)
        count = after = 0
        while records := await self._outbox.records(criteria, after=after, limit=_BATCH):
            after = records[-1].id
            # Events before the end are outdated by now, so they are delivered again only if they are named by their own id.
            ids = [one.id for one in records if one.kind is WebhookKind.COMPLETED or criteria.delivery_id is not None]
            count += await self._outbox.redeliver(ids)
        if count:
            self._emit(Redelivered(count))
        return count
