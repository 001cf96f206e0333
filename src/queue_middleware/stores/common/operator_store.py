"""The port of operators, the same for every database: each method is one operation or one read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from queue_middleware.errors import QueueError
from queue_middleware.jobs.job_detail import JobDetail, KeptRequest
from queue_middleware.jobs.models import JobState, NewJob
from queue_middleware.jobs.timeline import TimelineEntry
from queue_middleware.settings import Settings

from . import bulk, copies, kept_requests, operator_queries, timeline
from .access import Read, Write
from .codec import encode_request
from .control_store import CommonControlStore
from .submissions import Limits


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
        self._limits = Limits.of(settings)

    # --- requests

    async def detail(self, request_id: str) -> JobDetail:
        """Read one request without its body and headers."""
        found: JobDetail = await self._read(lambda queries: operator_queries.detail(queries, request_id, self._clock()))
        return found

    async def timeline(self, request_id: str) -> list[TimelineEntry]:
        """Read what happened to a request."""
        entries: list[TimelineEntry] = await self._read_many(
            lambda queries: timeline.timeline(queries, request_id, self._clock())
        )
        return entries

    async def kept_request(self, request_id: str) -> KeptRequest:
        """Read a request that can be submitted again."""
        found: KeptRequest = await self._read_many(
            lambda queries: kept_requests.kept_request(queries, request_id, self._clock())
        )
        return found

    async def kept_requests(self, request_ids: Sequence[str]) -> list[KeptRequest | QueueError]:
        """Read several of them."""
        found: list[KeptRequest | QueueError] = await self._read_many(
            lambda queries: kept_requests.kept_requests(queries, request_ids, self._clock())
        )
        return found

    # --- acts

    async def copy(self, originals: Sequence[tuple[str, NewJob]], operator: str, target: str) -> list[str | QueueError]:
        """Submit copies of ended jobs in one transaction."""
        payload = [(request_id, new, encode_request(new.request)) for request_id, new in originals]
        size = sum(len(new.request.body) for _, new in originals)
        return await self._write(copies.copy, (payload, self._limits, operator, target), size)

    async def cancel_many(self, keys: Sequence[int], operator: str, target: str) -> dict[int, JobState]:
        """Cancel jobs in bounded transactions."""
        states: dict[int, JobState] = {}
        for start in range(0, len(keys), bulk.BATCH):
            left: Sequence[int] = keys[start : start + bulk.BATCH]
            while left:
                cancelled = await self._write(bulk.cancel, (left, operator, target))
                states |= cancelled.states
                left = cancelled.left
        return states

    async def run_now(self, keys: Sequence[int], operator: str, target: str) -> list[int]:
        """Make delayed jobs due in bounded transactions."""
        due: list[int] = []
        for start in range(0, len(keys), bulk.BATCH):
            due += await self._write(bulk.run_now, (keys[start : start + bulk.BATCH], operator, target))
        return due
