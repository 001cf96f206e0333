"""The port of jobs: every method of a job's life. Each docstring is a contract that the conformance suite checks.

A method that changes something has committed it durably when it returns. A method that names a claim changes nothing and
returns False or None if the claim is no longer held: its lease ran out and another worker has the job. That is an ordinary
outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Protocol, TypeVar

from queue_middleware.errors import QueueError

from .counts import QueueCounts
from .job_list import JobFilter, JobPage, ListPosition
from .log_lines import LogLine
from .models import (
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
from .outcomes import LossReason
from .processes import Usage
from .rescues import GivenUpDelivery

T = TypeVar("T")
OnResult = Callable[[T | QueueError], None]
"""Called in the event loop with the result of a method, or with the error that prevented it."""


class Topic(StrEnum):
    """The kinds of change that a listener can subscribe to."""

    WORK = "work"
    """A job may be claimable."""
    CANCEL = "cancel"
    """A running job is to be cancelled, or its claim was lost."""
    DELIVERY = "delivery"
    """A webhook may be due."""
    POLL = "poll"
    """A poll of a provider may be due."""
    STATUS = "status"
    """Something of a job that its submitter can read may have changed."""


class JobStore(Protocol):
    """One process's view of the shared queue, under an owner name that is random for each start."""

    def subscribe(self, topic: Topic, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` in the event loop after every change of this kind by any process; it may also be called without one.

        Call the returned function to unsubscribe. `STATUS` costs nothing while it has no listener.
        """

    # --- for submitters

    def submit(
        self, new: NewJob, *, start: bool = False, on_result: OnResult[SubmitResult] | None = None
    ) -> Awaitable[SubmitResult]:
        """Store a job. With `start`, and if no other job is queued, the same transaction claims it: `SubmitResult.claim`.

        `on_result` is called once in the event loop with the result or the error, even if the caller has stopped waiting: a
        claimed job has to be run.

        With `new.idempotency_key`, a job that was created with the same key is returned instead, as it is now
        (`SubmitResult.existing`), and no limit applies. Of several submissions with one key, by any processes, one creates the
        job. A key is free again when retention has deleted its job, and with `idempotency_retry_failed` also when its job has
        failed: without a response, or with a status from 500.

        Raises `IdempotencyKeyReused` if the key was sent with another fingerprint, `QueueFull` (`max_queued`, `max_tasks`),
        `TooManyQueued` (the client's limits, or `new.max_queue_length`), `DiskFull`, `StoreBusy`.
        """

    async def job(self, request_id: str) -> Job:
        """The current state of a job. Raises `UnknownRequest`, or `BadRequest` for a malformed id."""

    async def snapshots(self, keys: Sequence[int], *, positions: bool) -> list[JobSnapshot]:
        """The current state of the jobs with these keys, in any order. Jobs that retention has deleted are left out.

        The returned state is never older than what a previous call of any reading method returned.
        """

    async def changed(self, keys: Sequence[int], state: JobState, attempt: int) -> list[int]:
        """Those of the keys whose jobs are not in this state or not in this attempt, or that retention has deleted.

        Costs far less than `snapshots`, which returns what they have become.
        """

    async def result(self, request_id: str) -> JobResult:
        """An ended job with its response. Raises `StillInProgress` before the end, `UnknownRequest`, `BadRequest`."""

    async def response_chunk(self, key: int, number: int) -> bytes:
        """Chunk `number` (from 0) of a streamed response. Raises `UnknownRequest` when retention has deleted it."""

    async def logs(self, key: int, after: int = 0) -> list[LogLine]:
        """The log lines of a job whose number is larger than `after`, in order; none when retention has deleted them.

        They are complete once a read has shown that the job has ended, unless the database failed while the last ones were
        being stored.
        """

    async def cancel(self, request_id: str) -> CancelOutcome:
        """End a job that is not running at once; mark a running one to be cancelled. Raises `UnknownRequest`, `BadRequest`."""

    # --- for the worker

    async def claim(self, limit: int) -> list[Claim]:
        """Start up to `limit` jobs, by priority, then by submission. Each claim charges an attempt and starts a lease."""

    def append(self, claim: Claim, number: int, data: bytes) -> Awaitable[bool]:
        """Store chunk `number` of the response while it is being produced."""

    def complete(self, claim: Claim, response: StoredResponse) -> Awaitable[bool]:
        """Store the application's response, end the job, and make its webhook due, in one transaction.

        A repeated call with the same claim returns True again and changes nothing; the same holds for `fail`.
        """

    def fail(self, claim: Claim, failure: Failure) -> Awaitable[bool]:
        """End the job without a response, as cancelled if `failure` is `CLIENT_CANCELLED`, and make its webhook due."""

    def end(self, claim: Claim, outcome: StoredResponse | Failure, on_result: OnResult[bool]) -> None:
        """Complete or fail the job as `complete` and `fail` do; `on_result` is called with the result or the error."""

    async def retry(
        self, claim: Claim, delay: float, line: LogLine | None = None, outcome: StoredResponse | Failure | None = None
    ) -> AttemptEnd | None:
        """Delay the job for another attempt in `delay` seconds; returns what became of the job.

        A job that is to be cancelled is cancelled instead, and a final result that arrived during the attempt ends the job.
        `line` is added to the job's log and gives the reason. `outcome` is that of the attempt, for its record.
        """

    async def release(self, claim: Claim) -> AttemptEnd | None:
        """Queue the job again at its old position without charging the attempt; returns what became of the job.

        A job that is to be cancelled is cancelled instead, and a final result that arrived during the attempt ends the job.

        A log line records the release. If a job is released more than `retry.MAX_FREE_RELEASES` times in a row, each time after
        an attempt shorter than `retry.LONG_ATTEMPT_MS`, the attempt is charged, and the job fails if no attempt is left.
        """

    def lose(self, claim: Claim, loss: LossReason) -> Awaitable[RescuedJob | None]:
        """Treat an attempt that ends this process as `rescue` treats a lost one. None if the claim is no longer held."""

    def log(self, claim: Claim, lines: Sequence[LogLine], progress: Progress | None = None) -> Awaitable[bool]:
        """Store the next log lines of the job, in order, and the progress of the attempt, which replaces earlier progress.

        Lines are numbered after the stored ones. The claim that ended the job may still add its last lines.
        """

    def keep_trace(self, claim: Claim, context: str, on_result: OnResult[bool]) -> None:
        """Store the trace context of the attempt (a `traceparent` of W3C Trace Context), which replaces that of an earlier one.

        It is stored no later than what is written after this call. `on_result` is called with whether the claim holds the
        job, or has ended it.
        """

    async def trace_of(self, key: int) -> str | None:
        """The trace context of the last attempt that stored one; None if there is none, or the job has been deleted."""

    async def running_claims(self) -> Mapping[tuple[int, int], bool]:
        """All jobs that this process runs: key and token → whether the job is to be cancelled."""

    def renew(self, tokens: Collection[int], usage: Usage | None = None) -> int:
        """Extend the leases of these jobs, deliveries and polls of this process; returns how many it still holds.

        Call it four times per lease, also without tokens: this shows a process that the database is reachable
        (`leases.DatabaseUptime`). The list of processes shows `usage` (`ControlStore.register`). If fewer leases are held than
        were named, listeners to `Topic.CANCEL` are notified. Blocking; called from a dedicated thread.
        """

    # --- for maintenance

    async def rescue(self, *, running: Collection[int] = ()) -> list[RescuedJob | GivenUpDelivery]:
        """Take over the jobs, deliveries and polls of lost processes. Returns the jobs, and the deliveries that are given up.

        `running` are the tokens that this process works on; their leases are renewed first, in the same transaction.
        `leases.IS_LOST` decides what counts as lost.

        A job fails if it has no attempt left, or if the process that accepted it has `on_crash="fail"`. All others are
        suspects until they end or are retried for another reason: a suspect is delayed by its backoff, and is claimed only
        while no other suspect is queued or running in any process. Jobs that are not suspects are claimed meanwhile. A line in
        the log of each suspect gives the reason for the delay.
        """

    async def expire(self) -> list[RescuedJob]:
        """Fail jobs that have not started by their deadline, some hundreds per call; an empty list when none are left."""

    async def prune(self, limit: int) -> int:
        """Delete expired data, up to `limit` rows of each kind, in one short transaction; 0 when nothing is left to delete.

        Returns how many jobs and responses were deleted, or deleted in part: a long one takes several calls. Data that a
        pending webhook needs is kept.

        Ended jobs older than the retention are deleted with everything that belongs to them. If a job was submitted with the
        request not to store its response, the response is deleted after `outcomes.UNSTORED_RESPONSE_TTL_MS`, a large one after
        `outcomes.LARGE_UNSTORED_RESPONSE_TTL_MS`. The health of hosts that received no webhook for the retention is deleted as
        well.
        """

    async def counts(self) -> QueueCounts:
        """How many jobs, deliveries and receivers are in each state, and how the stored jobs ended. Visits no ended job."""

    # --- for operators

    async def page(self, wanted: JobFilter, after: ListPosition | None = None, limit: int = 100) -> JobPage:
        """A page of the jobs that `wanted` selects, newest first, at most `limit` of them (1 to `job_list.MAX_PAGE`).

        Pass `JobPage.next` as `after` for the next page. A page examines a bounded number of jobs, so it may be short, or
        empty, before the end; a list ends after `job_list.MAX_EXAMINED` jobs were examined.
        """

    async def routes(self) -> list[str]:
        """The templates of all stored routes, without `routes.OTHER`: those of jobs, and those of `keep_routes`."""

    async def keep_routes(self, routes: Sequence[tuple[str, str]]) -> None:
        """Store routes, each a method and a template, before a job has them. Idempotent. Beyond 200, none is stored."""

    # --- for loops

    async def next_due(self, topic: Topic) -> float | None:
        """Seconds until something is due; None if nothing is.

        That is for `WORK` a delayed job or the end of a pause, for `DELIVERY` a webhook, for `POLL` a poll.
        """
