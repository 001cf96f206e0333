"""The port of tasks: jobs that an external service finishes by callback, signal or poll, and their time-outs.

A job becomes awaiting together with the response of its attempt. The first final result ends it; all later ones are rejected.
Each docstring is a contract that the conformance suite checks. A method that changes something has committed it durably when
it returns.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from queue_middleware.jobs.models import AttemptEnd, Claim, Failure, RescuedJob, StoredResponse
from queue_middleware.jobs.store import OnResult
from queue_middleware.jobs.task_spec import Task

from .models import (
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


class TaskStore(Protocol):
    """One process's view of all tasks."""

    # --- for attempts

    def register_callback(self, claim: Claim, task: Task) -> Awaitable[bool]:
        """Make a running plain job a task, because its handler requested a callback URL; False if the claim is lost."""

    def complete_attempt(
        self,
        claim: Claim,
        task: Task,
        outcome: StoredResponse | Failure,
        wait: Wait | None,
        on_result: OnResult[AttemptEnd | None] | None = None,
    ) -> Awaitable[AttemptEnd | None]:
        """End an attempt of a task, as `JobStore.complete` and `JobStore.fail` do for other jobs.

        With `wait` the job awaits an external service from now on, and its response is kept for the polls. A final result
        that arrived during the attempt ends the job, whatever the outcome of the attempt. Returns what became of the job;
        None if the claim is no longer held. A repeated call with the same claim changes nothing and returns the same.
        """

    # --- for external services

    async def find(self, kind: SecretIdKind, digest: bytes) -> PendingJob:
        """The job whose secret id of this kind has this SHA-256. Raises `UnknownRequest`."""

    async def resolve(self, key: int, source: CompletionSource, result: ExternalResult) -> ResolveOutcome:
        """Store the final result: end the job and make its webhook due in one transaction, or return that it had ended.

        A queued or delayed job is ended too: a call whose response was lost may have reached its target. If an attempt is
        running, the result is kept until the attempt has ended. Raises `UnknownRequest` when retention has deleted the job.
        """

    async def record_status(self, key: int, status: str) -> None:
        """Store an intermediate status, replacing an earlier one. A job that has ended is not changed."""

    # --- for the poller

    async def claim_polls(self, capacity: PollCapacity) -> ClaimedPolls:
        """Start due polls, the longest due first, as far as `tasks.polling.schedule.HostSelector` has capacity for their hosts.

        A host at its limit delays no other, however many polls of it are due; they may be postponed for some seconds. Each
        poll starts a lease, as an attempt does; a poll whose lease is lost is due again.
        """

    async def settle_poll(
        self, poll: PollClaim, *, next_in: float | None, status: str | None = None, failures: int = 0
    ) -> bool:
        """Record a poll without a final result. The next one is due in `next_in` seconds; None means that there is none.

        `failures` is passed to the next poll. False if the poll is no longer held, or the job has ended.
        """

    # --- for maintenance

    async def time_out(self) -> list[RescuedJob]:
        """Fail tasks that have waited too long, some hundreds per call; an empty list when none are left.

        A task whose last poll is still due gets another minute for it.
        """

    # --- for clients

    async def record(self, request_id: str) -> TaskRecord:
        """One task, with its response once it has ended. Raises `BadRequest`, and `UnknownRequest` also for a plain job."""

    async def page(self, client: str, status: TaskStatus | None, *, limit: int, offset: int) -> TaskPage:
        """Tasks of one client (`NewJob.client`), newest first; `status` selects those of one status."""
