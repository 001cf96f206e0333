"""The port of operators, the same for every database: each method is one operation or one read."""

from __future__ import annotations

from collections.abc import Callable, Collection

from queue_middleware.jobs.job_detail import JobDetail, KeptRequest
from queue_middleware.jobs.timeline import TimelineEntry
from queue_middleware.settings import Settings

from . import kept_requests, operator_queries, timeline
from .access import Read, Write
from .control_store import CommonControlStore


class CommonOperatorStore(CommonControlStore):
    """`jobs.operator_store.OperatorStore` on the operations and reads of a store.

    The parameters after `settings` are those of `CommonControlStore`.
    """

    def __init__(
        self,
        settings: Settings,
        write: Write,
        read: Read,
        read_many: Read,
        clock: Callable[[], int],
        living: Callable[[], Collection[str]],
        owner: Callable[[], str],
    ) -> None:
        super().__init__(write, read, read_many, clock, living, owner)
        self._settings = settings

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
