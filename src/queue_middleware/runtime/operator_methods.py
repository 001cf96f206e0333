"""The operator's methods of a queue, which `QueueMiddleware` inherits."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from queue_middleware.jobs.audit import APPLICATION, Action, AuditRecord
from queue_middleware.jobs.counts import QueueCounts
from queue_middleware.jobs.pauses import Pause
from queue_middleware.jobs.processes import ProcessRecord
from queue_middleware.webhooks.admin import UNHEALTHY, make_filter
from queue_middleware.webhooks.models import DeliveryAttempt, DeliveryRecord, FlowRecord, ReceiverHealth

from .runtime import Runtime


class OperatorMethods:
    """What the operator asks of a queue, and does to it. Each method raises `NotRunning` if the queue is not running."""

    _runtime: Runtime

    async def counts(self) -> QueueCounts:
        """How many requests, webhooks and receivers are in each state; empty states are left out."""
        return await self._runtime.counts()

    async def pause(
        self, route: str | None = None, *, reason: str = "", until: datetime | None = None, operator: str = APPLICATION
    ) -> None:
        """Hold the starts of a route, or of all routes, in every process and over restarts. Submissions are accepted as before.

        `route` is a template such as `/items/{id}`, as events have it. Running requests, webhooks and polls go on, and requests
        keep their positions. `until` is a datetime with a time zone at which the pause ends by itself. An earlier pause of the
        same route is replaced. `operator` is recorded, and is in the event `Operated`. Raises `BadRequest`.
        """
        with self._runtime.acting(Action.PAUSE, operator) as work:
            await self._runtime.control.pause(route, reason, until, operator)
            work.count = 1

    async def resume(self, route: str | None = None, *, operator: str = APPLICATION) -> bool:
        """End the pause of a route; False if it is not paused. Without `route`, end the pause of all routes.

        A pause of all routes and the pause of one route are separate: a request starts when neither holds. Raises `BadRequest`.
        """
        with self._runtime.acting(Action.RESUME, operator) as work:
            is_resumed = await self._runtime.control.resume(route, operator)
            work.count = int(is_resumed)
        return is_resumed

    async def pauses(self) -> list[Pause]:
        """The pauses that hold now, by route; the route `*` stands for all routes. Times are milliseconds since 1970."""
        return await self._runtime.control.pauses()

    async def processes(self) -> list[ProcessRecord]:
        """The processes that run the queue now, the oldest first. Each reports four times in a lease (option `lease`)."""
        return await self._runtime.control.processes()

    async def audit(self, *, before: int | None = None, limit: int = 100) -> list[AuditRecord]:
        """What operators have done, the newest first, at most `limit` records (1 to 1,000). The newest 10,000 are kept.

        For the next page, pass the last id as `before`. Raises `BadRequest`.
        """
        return await self._runtime.control.audit(before, limit)

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
        operator: str = APPLICATION,
    ) -> int:
        """Deliver webhooks again, and return how many. Each starts its schedule anew, under the same id.

        The arguments select webhooks as in `deliveries`. With `request_id` or `delivery_id`, webhooks in any state are
        selected; otherwise only those that were given up, unless `dead_only=False`. `operator` is recorded, and is in the event
        `Operated`.
        Raises `BadRequest` if nothing is selected, and `UnknownRequest`.
        """
        criteria = make_filter(
            request_id=request_id, delivery_id=delivery_id, host=host, since=since, until=until, dead_only=dead_only
        )
        with self._runtime.acting(Action.REDELIVER, operator) as work:
            work.count = count = await self._runtime.webhook_admin.redeliver(criteria, operator)
        return count

    async def probe(self, host: str, *, operator: str = APPLICATION) -> int:
        """Send one webhook now for each open circuit of a receiver, whatever its schedule, and return how many.

        Without an open circuit, or if nothing is pending, nothing is sent. `operator` is recorded, and is in the event
        `Operated`.
        """
        with self._runtime.acting(Action.PROBE, operator) as work:
            work.count = count = await self._runtime.webhook_admin.probe(host, operator)
        return count
