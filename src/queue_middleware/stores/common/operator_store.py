"""The port of operators, the same for every database: each method is one operation or one read."""

from __future__ import annotations

from collections.abc import Callable

from queue_middleware.jobs.audit import Action, AuditRecord
from queue_middleware.jobs.job_detail import JobDetail, KeptRequest
from queue_middleware.jobs.pauses import Pause, paused_routes
from queue_middleware.jobs.timeline import TimelineEntry
from queue_middleware.settings import Settings

from . import audit, kept_requests, operator_queries, pauses, timeline
from .access import Read, Write


class CommonOperatorStore:
    """`jobs.operator_store.OperatorStore` on the operations and reads of a store.

    `clock` gives milliseconds since 1970.
    """

    def __init__(self, settings: Settings, write: Write, read: Read, read_many: Read, clock: Callable[[], int]) -> None:
        self._settings = settings
        self._write = write
        self._read = read
        self._read_many = read_many
        self._clock = clock

    # --- requests

    async def detail(self, request_id: str) -> JobDetail:
        """Read one request without its body and headers."""
        found: JobDetail = await self._read(lambda queries: operator_queries.detail(queries, request_id))
        return found

    async def timeline(self, request_id: str) -> list[TimelineEntry]:
        """Read what happened to a request."""
        entries: list[TimelineEntry] = await self._read_many(lambda queries: timeline.timeline(queries, request_id))
        return entries

    async def kept_request(self, request_id: str) -> KeptRequest:
        """Read a request that can be submitted again."""
        found: KeptRequest = await self._read_many(lambda queries: kept_requests.kept_request(queries, request_id))
        return found

    # --- pauses

    async def pauses(self) -> list[Pause]:
        """Read the pauses that hold now."""
        stored = await self._read(pauses.read)
        held = paused_routes(stored, self._clock())
        return [one for one in stored if one.route in held]

    async def pause(self, pause: Pause) -> None:
        """Hold the starts of a route."""
        await self._write(pauses.pause, pause)

    async def resume(self, route: str, operator: str) -> bool:
        """End the pause of a route."""
        return await self._write(pauses.resume, (route, operator))

    async def end_pauses(self) -> list[Pause]:
        """Delete the pauses that have ended by themselves."""
        stored = await self._read(pauses.read)
        if len(paused_routes(stored, self._clock())) == len(stored):
            return []
        return await self._write(pauses.end_overdue, None)

    # --- the record of acts

    async def audit(self, before: int | None = None, limit: int = 100) -> list[AuditRecord]:
        """Read what operators have done, the newest first."""
        return await self._read_many(lambda queries: audit.records(queries, before, limit))

    async def record(self, operator: str, action: Action, target: str, count: int) -> None:
        """Record an act that another port has carried out."""
        await self._write(audit.record, (operator, action, target, count))
