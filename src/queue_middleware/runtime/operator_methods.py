"""The operator's methods of a queue, which `QueueMiddleware` inherits."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.counts import QueueCounts
from queue_middleware.webhooks.admin import UNHEALTHY, make_filter
from queue_middleware.webhooks.models import DeliveryAttempt, DeliveryRecord, FlowRecord, ReceiverHealth

from .runtime import Runtime


class OperatorMethods:
    """What the operator asks of a queue, and does to it. Each method raises `NotRunning` if the queue is not running."""

    _runtime: Runtime

    async def counts(self) -> QueueCounts:
        """How many requests, webhooks and receivers are in each state; empty states are left out."""
        return await self._runtime.counts()

    async def deliveries(
        self,
        *,
        after: int = 0,
        limit: int = 100,
        request_id: str | None = None,
        delivery_id: int | None = None,
        host: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        dead_only: bool = False,
    ) -> list[DeliveryRecord]:
        """One page of webhooks, oldest first; each argument that is given narrows the selection.

        `since` and `until` limit the time at which a webhook was first due. For the next page, pass the last id as `after`.
        """
        criteria = make_filter(
            request_id=request_id, delivery_id=delivery_id, host=host, since=since, until=until, dead_only=dead_only
        )
        return await self._runtime.webhook_admin.deliveries(criteria, after=after, limit=limit)

    async def delivery_attempts(self, delivery_id: int) -> list[DeliveryAttempt]:
        """The recorded attempts of one delivery, with the beginning of each response. Do not show them to the submitter."""
        return await self._runtime.webhook_admin.attempts(delivery_id)

    async def receivers(self, health: Collection[ReceiverHealth] = UNHEALTHY) -> list[FlowRecord]:
        """At most 1,000 flows with one of these states of health; by default those that are slow, failing or open."""
        return await self._runtime.webhook_admin.receivers(health)

    async def redeliver(
        self,
        *,
        request_id: str | None = None,
        delivery_id: int | None = None,
        host: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        dead_only: bool | None = None,
    ) -> int:
        """Deliver webhooks again, and return how many. Each starts its schedule anew, under the same id.

        The arguments select webhooks as in `deliveries`. With `request_id` or `delivery_id`, webhooks in any state are
        selected; otherwise only those that were given up, unless `dead_only=False`.
        Raises `BadRequest` if nothing is selected, and `UnknownRequest`.
        """
        criteria = make_filter(
            request_id=request_id, delivery_id=delivery_id, host=host, since=since, until=until, dead_only=dead_only
        )
        with self._runtime.acting(Action.REDELIVER, "application") as work:
            work.count = count = await self._runtime.webhook_admin.redeliver(criteria)
        return count
