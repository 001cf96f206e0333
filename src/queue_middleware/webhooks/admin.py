"""The operator's view of webhooks: list deliveries, attempts and receivers, and deliver again."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Collection
from datetime import datetime

from msgspec import to_builtins
from msgspec.json import encode

from queue_middleware.errors import BadRequest
from queue_middleware.events import Emit, Operated, Redelivered
from queue_middleware.jobs.audit import APPLICATION, Action, checked_operator
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

    async def redeliver(self, criteria: DeliveryFilter, operator: str = APPLICATION) -> int:
        """Deliver again what `selected` selects, each with its whole schedule. Returns how many."""
        return await self.redeliver_batches(self.selected(criteria), operator, target_of(criteria))

    async def redeliver_batches(self, batches: AsyncIterable[list[int]], operator: str, target: str) -> int:
        """Deliver these webhooks again, each batch in one transaction. `target` is recorded. Raises `BadRequest`."""
        operator, count = checked_operator(operator), 0
        async for ids in batches:
            count += await self._outbox.redeliver(ids, operator, target)
        if count:
            self._emit(Redelivered(count))
            self._emit(Operated(operator, Action.REDELIVER, target, count))
        return count

    async def probe(self, host: str, operator: str = APPLICATION) -> int:
        """Send a webhook now for each open circuit of the host. Returns how many."""
        operator, host = checked_operator(operator), canonical_authority(host)
        count = await self._outbox.probe(host, operator)
        if count:
            self._emit(Operated(operator, Action.PROBE, host, count))
        return count

    async def selected(self, criteria: DeliveryFilter) -> AsyncIterator[list[int]]:
        """The ids of the webhooks to deliver again, in batches. Raises `BadRequest`, `UnknownRequest`.

        Unless `dead_only` is set, deliveries of a request or a delivery that is named are selected in any state, others only if
        they were given up.
        """
        is_named = criteria.request_id is not None or criteria.delivery_id is not None
        if not is_named and criteria.host is None and criteria.since is None and criteria.until is None:
            raise BadRequest("no webhooks are selected; pass request_id, delivery_id, host, since or until")
        if criteria.dead_only is None:
            criteria = criteria.replace(dead_only=not is_named)
        after = 0
        while records := await self._outbox.records(criteria, after=after, limit=_BATCH):
            after = records[-1].id
            # Events before the end are outdated by now, so they are delivered again only if they are named by their own id.
            yield [one.id for one in records if one.kind is WebhookKind.COMPLETED or criteria.delivery_id is not None]


def target_of(criteria: DeliveryFilter) -> str:
    """What is recorded about a selection: the id of a webhook or a request, else the conditions that are set."""
    if criteria.delivery_id is not None:
        return str(criteria.delivery_id)
    conditions = {name: value for name, value in to_builtins(criteria).items() if value is not None}
    return criteria.request_id or encode(conditions).decode()
