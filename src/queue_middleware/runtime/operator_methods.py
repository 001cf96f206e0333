"""The operator's methods of a queue, which `QueueMiddleware` inherits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, overload

from msgspec import UNSET, UnsetType

from queue_middleware.jobs.acts import ActReport
from queue_middleware.jobs.audit import APPLICATION, Action, AuditRecord
from queue_middleware.jobs.counts import QueueCounts
from queue_middleware.jobs.job_detail import JobDetail
from queue_middleware.jobs.job_list import JobFilter, JobPage, ListPosition
from queue_middleware.jobs.models import CancelOutcome
from queue_middleware.jobs.pauses import Pause
from queue_middleware.jobs.processes import ProcessRecord
from queue_middleware.jobs.timeline import TimelineEntry
from queue_middleware.webhooks.admin import UNHEALTHY, make_filter
from queue_middleware.webhooks.models import DeliveryAttempt, DeliveryRecord, FlowRecord, ReceiverHealth

from .runtime import Runtime

if TYPE_CHECKING:
    from queue_middleware.observability.metrics.exposition import QueueCollector

EVERY_JOB = JobFilter()


class OperatorMethods:
    """What the operator asks of a queue, and does to it. Each method raises `NotRunning` if the queue is not running."""

    _runtime: Runtime

    async def counts(self) -> QueueCounts:
        """How many requests, webhooks and receivers are in each state; empty states are left out."""
        return await self._runtime.counts()

    # --- requests

    async def requests(self, wanted: JobFilter = EVERY_JOB, *, after: ListPosition | None = None, limit: int = 100) -> JobPage:
        """A page of the selected requests, newest first, at most `limit` of them (1 to 500).

        Make the filter with `jobs.job_list.select`. For the next page, pass `JobPage.next` as `after`. A page may be short, or
        empty, before the end. A list has the newest 100,000 requests at most.
        """
        return await self._runtime.request_admin.page(wanted, after, limit)

    async def request(self, request_id: str) -> JobDetail:
        """Everything about one request except bodies and headers. Raises `UnknownRequest`, `BadRequest`."""
        return await self._runtime.request_admin.detail(request_id)

    async def timeline(self, request_id: str) -> list[TimelineEntry]:
        """What happened to a request, in order of time. Raises `UnknownRequest`, `BadRequest`."""
        return await self._runtime.request_admin.timeline(request_id)

    @overload
    async def cancel(self, which: str, *, operator: str = APPLICATION) -> CancelOutcome: ...
    @overload
    async def cancel(self, which: JobFilter, *, expect: int | None = None, operator: str = APPLICATION) -> ActReport: ...
    async def cancel(
        self, which: str | JobFilter, *, expect: int | None = None, operator: str = APPLICATION
    ) -> CancelOutcome | ActReport:
        """Cancel a request by its id, or those of the selected requests that have not ended; running ones end themselves.

        `expect`: do nothing and raise `SelectionDiffers` unless the filter selects this number of requests. `operator` is
        recorded, and is in the event `Operated`. Raises `UnknownRequest`, `BadRequest`.
        """
        admin = self._runtime.request_admin
        with self._runtime.acting(Action.CANCEL, operator) as work:
            if isinstance(which, JobFilter):
                report = await admin.cancel_selected(which, operator, expect)
                work.count = report.done
                return report
            outcome = await admin.cancel(which, operator)
            work.count = int(outcome is not CancelOutcome.FINISHED)
            return outcome

    @overload
    async def run_now(self, which: str, *, operator: str = APPLICATION) -> bool: ...
    @overload
    async def run_now(self, which: JobFilter, *, expect: int | None = None, operator: str = APPLICATION) -> ActReport: ...
    async def run_now(
        self, which: str | JobFilter, *, expect: int | None = None, operator: str = APPLICATION
    ) -> bool | ActReport:
        """Start a delayed request as soon as a slot is free, by its id or a filter. False for an id that is not delayed.

        `expect` and `operator` as for `cancel`. Raises `UnknownRequest`, `BadRequest`.
        """
        admin = self._runtime.request_admin
        with self._runtime.acting(Action.RUN_NOW, operator) as work:
            if isinstance(which, JobFilter):
                report = await admin.run_selected_now(which, operator, expect)
                work.count = report.done
                return report
            is_due = await admin.run_now(which, operator)
            work.count = int(is_due)
            return is_due

    @overload
    async def replay(
        self,
        which: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        webhook: str | UnsetType | None = UNSET,
        operator: str = APPLICATION,
    ) -> str: ...
    @overload
    async def replay(self, which: JobFilter, *, expect: int | None = None, operator: str = APPLICATION) -> ActReport: ...
    async def replay(
        self,
        which: str | JobFilter,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        webhook: str | UnsetType | None = UNSET,
        expect: int | None = None,
        operator: str = APPLICATION,
    ) -> str | ActReport:
        """Submit an ended request again, by its id, and return the id of the copy; or all that a filter selects.

        The copy belongs to the client of the original, and each names the other. Its request is the kept one (option
        `keep_requests`), with another `body`, with `headers` in place of those with the same names, and with another `webhook`,
        or none for None. `expect` and `operator` as for `cancel`. A report counts what was left out, by the reason. Raises
        `NotKept`, `NotEnded`, `UnknownRequest`, `BadRequest`, `InvalidWebhook`, `TooLarge`, and what the limits for submissions
        raise.
        """
        admin = self._runtime.request_admin
        with self._runtime.acting(Action.REPLAY, operator) as work:
            if isinstance(which, JobFilter):
                report = await admin.replay_selected(which, operator, expect)
                work.count = report.done
                return report
            copy = await admin.replay(which, self._runtime.changes(body, headers, webhook), operator)
            work.count = 1
            return copy

    # --- the queue as a whole

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

    def collector(self) -> QueueCollector:
        """A collector of the queue's metrics, for a registry of `prometheus_client` that the application exposes itself.

        It shows the numbers of all processes. While the queue does not run, it has no metrics; reading them blocks for some
        milliseconds. Raises `ImportError` without the extra `metrics`.
        """
        # Imported here, because the extra may not be installed.
        from queue_middleware.observability.metrics.exposition import QueueCollector

        return QueueCollector(lambda: self._runtime.services.stores.metrics.read_now())

    # --- webhooks

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
