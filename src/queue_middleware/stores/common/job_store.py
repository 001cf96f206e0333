"""The methods of the job port that are the same for every database: each is one operation or one read.

Each layer has its own verb for the end of an attempt. The worker settles it, the port completes or fails its job, and the
operation `jobs.finish` writes both. A job ends when it reaches a final state in whatever way, for instance by a cancellation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence

from queue_middleware.jobs.attempts import reason_of
from queue_middleware.jobs.counts import QueueCounts
from queue_middleware.jobs.ids import parse_request_id
from queue_middleware.jobs.job_list import JobFilter, JobPage, ListPosition
from queue_middleware.jobs.log_lines import LogLine
from queue_middleware.jobs.models import (
    AttemptEnd,
    CancelOutcome,
    Claim,
    Failure,
    Job,
    JobResult,
    JobSnapshot,
    JobState,
    NewJob,
    Progress,
    RescuedJob,
    StoredResponse,
    SubmitResult,
)
from queue_middleware.jobs.outcomes import LossReason
from queue_middleware.jobs.store import OnResult, Topic
from queue_middleware.settings import Settings

from . import deliveries, job_list, job_queries, jobs, logs, requeueing, submissions, traces
from .codec import clean, encode_lines, encode_request
from .operation_costs import ended_attempt, long_request_bytes
from .pending import R
from .reader import Reader
from .route_ids import keep_routes
from .transaction import Queries
from .webhook_store import CommonWebhookStore
from .writer import Writer


class CommonJobStore(ABC):
    """Base class of the job stores. The port `jobs.store.JobStore` states the contracts.

    A subclass opens the database, sets `_writer` and `_reader`, and implements the rest of the port, such as subscriptions: it
    is the job store, so it inherits. The stores of tasks and webhooks need only functions that write and read; the subclass
    passes its own to them.
    """

    _writer: Writer
    _reader: Reader
    webhooks: CommonWebhookStore

    def __init__(self, settings: Settings) -> None:
        self.owner = ""
        """A random name, new for each start of the process; the claims of the process have it."""
        self._limits = submissions.Limits.of(settings)

    def _read(self, work: Callable[[Queries], R]) -> Awaitable[R]:
        """Run a short read."""
        return self._reader.read(work)

    @abstractmethod
    def _read_many(self, work: Callable[[Queries], R]) -> Awaitable[R]:
        """Run a read that may visit many rows. Short reads do not wait for it."""

    @abstractmethod
    def _now(self) -> int:
        """The time by which jobs and deliveries become due, in milliseconds since 1970."""

    @abstractmethod
    def _check_accepting(self) -> None:
        """Raise an error if no submission can be accepted, as of the last check. Does no I/O."""

    # --- for submitters

    def submit(
        self, new: NewJob, *, start: bool = False, on_result: OnResult[SubmitResult] | None = None
    ) -> Awaitable[SubmitResult]:
        """Store a job. With `start` it is claimed at once if no other job is queued."""
        self._check_accepting()
        payload = (new, encode_request(new.request), start, self._limits)
        return self._writer.submit(submissions.submit, payload, len(new.request.body), on_result)

    async def job(self, request_id: str) -> Job:
        """Read one job."""
        return await self._reader.submit(job_queries.job, (request_id, *parse_request_id(request_id)))

    async def snapshots(self, keys: Sequence[int], *, positions: bool) -> list[JobSnapshot]:
        """Read several jobs."""
        return await self._read(lambda queries: job_queries.snapshots(queries, keys, positions))

    async def changed(self, keys: Sequence[int], state: JobState, attempt: int) -> list[int]:
        """Find the jobs that are not in this state any more."""
        return await self._read(lambda queries: job_queries.changed(queries, keys, state, attempt))

    async def result(self, request_id: str) -> JobResult:
        """Read an ended job with its response."""
        return await self._reader.submit(job_queries.result, (request_id, *parse_request_id(request_id)))

    async def response_chunk(self, key: int, number: int) -> bytes:
        """Read one chunk of a response."""
        return await self._read(lambda queries: job_queries.response_chunk(queries, key, number))

    async def logs(self, key: int, after: int = 0) -> list[LogLine]:
        """Read the log lines of a job with numbers above `after`."""
        return await self._read(lambda queries: logs.logs(queries, key, after))

    async def cancel(self, request_id: str) -> CancelOutcome:
        """Cancel a job; if it is running, its worker cancels it."""
        parse_request_id(request_id)
        return await self._writer.submit(jobs.cancel, request_id)

    # --- for the worker

    async def claim(self, limit: int) -> list[Claim]:
        """Start up to `limit` jobs."""
        return await self._writer.submit(jobs.claim, limit)

    def append(self, claim: Claim, number: int, data: bytes) -> Awaitable[bool]:
        """Store one chunk of a response."""
        return self._writer.submit(jobs.append, (claim, number, data), len(data))

    def complete(self, claim: Claim, response: StoredResponse) -> Awaitable[bool]:
        """End a job with a response."""
        return self._writer.submit(jobs.finish, ended_attempt(claim, response), long_request_bytes(claim) + len(response.body))

    def fail(self, claim: Claim, failure: Failure) -> Awaitable[bool]:
        """End a job without a response."""
        return self._writer.submit(jobs.fail, ended_attempt(claim, failure), long_request_bytes(claim))

    def end(self, claim: Claim, outcome: StoredResponse | Failure, on_result: OnResult[bool]) -> None:
        """End a job."""
        size, ended = long_request_bytes(claim), ended_attempt(claim, outcome)
        if isinstance(outcome, Failure):
            self._writer.submit_unawaited(jobs.fail, ended, size, on_result)
        elif (direct := self.webhooks.reserve(claim, outcome, on_result)) is not None:
            reservation, report = direct
            self._writer.submit_unawaited(deliveries.complete_and_claim, (ended, reservation), size + len(outcome.body), report)
        else:
            self._writer.submit_unawaited(jobs.finish, ended, size + len(outcome.body), on_result)

    async def retry(
        self, claim: Claim, delay: float, line: LogLine | None = None, outcome: StoredResponse | Failure | None = None
    ) -> AttemptEnd | None:
        """Delay a job for another attempt."""
        return await self._writer.submit(requeueing.retry, (claim, round(delay * 1000), line, reason_of(outcome)))

    async def release(self, claim: Claim) -> AttemptEnd | None:
        """Queue a job again without charging its attempt."""
        return await self._writer.submit(requeueing.release, claim)

    def lose(self, claim: Claim, loss: LossReason) -> Awaitable[RescuedJob | None]:
        """Treat an attempt as one whose process was lost."""
        return self._writer.submit(requeueing.lose, (claim, loss))

    def log(self, claim: Claim, lines: Sequence[LogLine], progress: Progress | None = None) -> Awaitable[bool]:
        """Store log lines and progress."""
        data = encode_lines(lines)
        if progress is not None and progress.stage is not None:
            progress = progress.replace(stage=clean(progress.stage))
        return self._writer.submit(logs.log, (claim, len(lines), data, progress), len(data))

    def keep_trace(self, claim: Claim, context: str, on_result: OnResult[bool]) -> None:
        """Store the trace context of an attempt."""
        self._writer.submit_unawaited(traces.keep_trace, (claim, context), len(context), on_result)

    async def trace_of(self, key: int) -> str | None:
        """Read the trace context of a job."""
        return await self._read(lambda queries: traces.trace_of(queries, key))

    async def running_claims(self) -> Mapping[tuple[int, int], bool]:
        """Read the running jobs of this process."""
        return await self._read(lambda queries: job_queries.running_claims(queries, self.owner))

    # --- for operators and loops

    async def counts(self) -> QueueCounts:
        """Count jobs, deliveries and receivers by state."""
        return await self._read_many(job_queries.counts)

    async def page(self, wanted: JobFilter, after: ListPosition | None = None, limit: int = 100) -> JobPage:
        """Read a page of jobs, newest first."""
        return await self._read_many(lambda queries: job_list.page(queries, wanted, after, limit))

    async def routes(self) -> list[str]:
        """Read the templates of all stored routes."""
        return await self._read(job_list.routes)

    async def keep_routes(self, routes: Sequence[tuple[str, str]]) -> None:
        """Store routes."""
        await self._writer.submit(keep_routes, routes)

    async def next_due(self, topic: Topic) -> float | None:
        """Read when the next job, webhook or poll is due."""
        now = self._now()
        due = await self._read(lambda queries: job_queries.next_due(queries, topic, now))
        return None if due is None else max(0.0, (due - self._now()) / 1000)
