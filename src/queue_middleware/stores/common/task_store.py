"""The task port, the same for every database: each method is one operation or one read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from queue_middleware.jobs.models import AttemptEnd, Claim, Failure, RescuedJob, StoredResponse
from queue_middleware.jobs.store import OnResult
from queue_middleware.jobs.task_spec import Task
from queue_middleware.tasks.models import (
    ClaimedPolls,
    CompletionSource,
    ExternalResult,
    PendingJob,
    PollCapacity,
    PollClaim,
    ResolveOutcome,
    SecretIdKind,
    TaskPage,
    TaskRecord,
    TaskStatus,
    Wait,
)

from . import polls, task_queries, tasks
from .access import Read, Write


class CommonTaskStore:
    """`tasks.store.TaskStore` on the operations and reads of a store."""

    def __init__(self, write: Write, read: Read, clock: Callable[[], int], read_many: Read) -> None:
        self._write = write
        self._read = read
        self._read_many = read_many
        self._clock = clock

    # --- for attempts

    def register_callback(self, claim: Claim, task: Task) -> Awaitable[bool]:
        """Make a running plain submission a task."""
        return self._write(tasks.register_callback, (claim, task))

    def complete_attempt(
        self,
        claim: Claim,
        task: Task,
        outcome: StoredResponse | Failure,
        wait: Wait | None,
        on_result: OnResult[AttemptEnd | None] | None = None,
    ) -> Awaitable[AttemptEnd | None]:
        """End an attempt of a task."""
        size = len(outcome.body) if isinstance(outcome, StoredResponse) else 0
        return self._write(tasks.complete_attempt, (claim, task, outcome, wait), size, on_result)

    # --- for external services

    async def find(self, kind: SecretIdKind, digest: bytes) -> PendingJob:
        """Find the job of a secret id."""
        found: PendingJob = await self._read(lambda queries: task_queries.find(queries, kind, digest))
        return found

    async def resolve(self, key: int, source: CompletionSource, result: ExternalResult) -> ResolveOutcome:
        """Store the final result."""
        return await self._write(tasks.resolve, (key, source, result), len(result.response.body))

    async def record_status(self, key: int, status: str) -> None:
        """Store an intermediate status."""
        await self._write(tasks.record_status, (key, status))

    # --- for the poller

    async def claim_polls(self, capacity: PollCapacity) -> ClaimedPolls:
        """Start due polls."""
        return await self._write(polls.claim, capacity)

    async def settle_poll(
        self, poll: PollClaim, *, next_in: float | None, status: str | None = None, failures: int = 0
    ) -> bool:
        """Record a poll without a final result."""
        return await self._write(polls.settle, (poll, None if next_in is None else round(next_in * 1000), status, failures))

    # --- for maintenance

    async def time_out(self) -> list[RescuedJob]:
        """Fail tasks that have waited too long."""
        if not await self._read(lambda queries: task_queries.has_timed_out_tasks(queries, self._clock())):
            return []
        return await self._write(tasks.time_out, None)

    # --- for clients

    async def record(self, request_id: str) -> TaskRecord:
        """Read one task."""
        record: TaskRecord = await self._read(lambda queries: task_queries.record(queries, request_id))
        return record

    async def page(self, client: str, status: TaskStatus | None, *, limit: int, offset: int) -> TaskPage:
        """Read tasks of one client."""
        page: TaskPage = await self._read_many(lambda queries: task_queries.page(queries, client, status, limit, offset))
        return page
