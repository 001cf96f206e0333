"""Operations on attempts after which the job runs again: retried, released, or lost with their process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from queue_middleware.backoff import exponential
from queue_middleware.jobs.attempts import HANDED_BACK, RepeatReason, reason_of_loss
from queue_middleware.jobs.ids import format_request_id
from queue_middleware.jobs.log_lines import LogLine, loss_line, release_line
from queue_middleware.jobs.models import (
    AttemptEnd,
    Claim,
    Failure,
    JobState,
    RescuedJob,
    RetryCause,
    RetryPolicy,
    StoredResponse,
    WebhookKind,
)
from queue_middleware.jobs.outcomes import CANCELLED, LOST, RELEASED_TOO_OFTEN, LossReason
from queue_middleware.jobs.rescues import GivenUpDelivery
from queue_middleware.jobs.retry import LONG_ATTEMPT_MS, MAX_FREE_RELEASES, attempts_allowed, attempts_left
from queue_middleware.jobs.store import Topic
from queue_middleware.webhooks.models import DeliveryState

from . import attempts
from .bounds import within_bounds
from .codec import encode_lines
from .jobs import end_of, finish, finish_with_early_result, policy_of
from .lost_claims import LostCriteria, lost_parameters
from .transaction import Transaction

LOST_SENDER = "lost: the process that sent it died or hung, and whether it arrived is not known"

Retry = tuple[Claim, int, LogLine | None, RepeatReason]
"""Claim, milliseconds to the next attempt, log line for the submitter, why the attempt is repeated."""


class _RunningJob(NamedTuple):
    """A row of the block `running_job`."""

    key: int
    tail: bytes
    attempt: int
    max_attempts: int
    retries: str | None
    cancelling: int
    token: int
    webhook: str | None
    task: int
    fails_on_crash: int
    started_at: int
    owner: str
    route: int

    @property
    def policy(self) -> RetryPolicy:
        return policy_of(self.max_attempts, self.retries)

    @property
    def is_last(self) -> bool:
        """Whether no attempt is left if this one is lost."""
        return not attempts_left(self.attempt, RetryCause.CONNECTION_ERROR, self.policy)

    def rescued_as(
        self, transaction: Transaction, state: JobState, outcome: StoredResponse | Failure | None = None
    ) -> RescuedJob:
        route = transaction.routes.template(transaction, self.route)
        return RescuedJob(format_request_id(self.key, self.tail), state, self.attempt, outcome, route)


def _running_job(transaction: Transaction, claim: Claim) -> _RunningJob | None:
    row = transaction.one("running_job", (claim.key, claim.token))
    return None if row is None else _RunningJob(*row)


# --- by the process that holds the claim


def retry(transaction: Transaction, batch: Sequence[Retry]) -> list[AttemptEnd | None]:
    """Delay jobs for another attempt, unless an early result or a cancellation ends them."""
    return [_retry(transaction, *item) for item in batch]


def _retry(transaction: Transaction, claim: Claim, delay: int, line: LogLine | None, reason: RepeatReason) -> AttemptEnd | None:
    job = _running_job(transaction, claim)
    if job is None:
        return None
    if (outcome := _end_if_decided(transaction, job)) is not None:
        return end_of(outcome)
    # The process has survived this attempt, so the job is no longer suspected of ending its process.
    transaction.change("delete_suspect", (job.key,))
    transaction.change("delete_release_count", (job.key,))
    _requeue(transaction, job, delay, line, reason)
    return AttemptEnd(JobState.DELAYED)


def release(transaction: Transaction, batch: Sequence[Claim]) -> list[AttemptEnd | None]:
    """Queue jobs again; the attempt is charged only if it was released too often."""
    jobs = [_running_job(transaction, claim) for claim in batch]
    return [None if job is None else _release(transaction, job) for job in jobs]


def release_all(transaction: Transaction, batch: Sequence[None]) -> list[int]:
    """Release the jobs, deliveries and polls of this process. Returns the number of jobs; repeat until it is 0."""
    held = [_RunningJob(*row) for row in within_bounds(transaction.all("running_jobs_of_owner", (transaction.owner,)))]
    for job in held:
        _release(transaction, job)
    parameters = {"due": None, "owner": transaction.owner, "tokens": None}
    if transaction.change("release_deliveries", parameters):
        transaction.topics.add(Topic.DELIVERY)
    if transaction.change("release_polls", parameters):
        transaction.topics.add(Topic.POLL)
    return [len(held) for _ in batch]


def _release(transaction: Transaction, job: _RunningJob) -> AttemptEnd:
    if (outcome := _end_if_decided(transaction, job)) is not None:
        return end_of(outcome)
    charged = _is_charged(transaction, job)
    if charged and job.is_last:
        _finish(transaction, job, RELEASED_TOO_OFTEN)
        return end_of(RELEASED_TOO_OFTEN)
    line = release_line(transaction.now, job.attempt, charged=charged)
    _requeue(transaction, job, None, line, HANDED_BACK, charged=charged)
    return AttemptEnd(JobState.QUEUED)


def _is_charged(transaction: Transaction, job: _RunningJob) -> bool:
    """Whether a release is charged: after many short attempts in a row, the job itself may be what stops its process."""
    if transaction.now - job.started_at >= LONG_ATTEMPT_MS:
        transaction.change("delete_release_count", (job.key,))
        return False
    row = transaction.one("count_release", (job.key,))
    return row is not None and int(row[0]) > MAX_FREE_RELEASES


# --- with the process


def lose(transaction: Transaction, batch: Sequence[tuple[Claim, LossReason]]) -> list[RescuedJob | None]:
    """Treat attempts that end this process as `rescue` treats those of a dead process."""
    found = [(_running_job(transaction, claim), reason) for claim, reason in batch]
    return [None if job is None else _lose(transaction, job, reason) for job, reason in found]


def rescue(transaction: Transaction, batch: Sequence[tuple[LostCriteria, int]]) -> list[list[RescuedJob | GivenUpDelivery]]:
    """Take over the jobs, deliveries and polls of lost processes. `jobs.leases.IS_LOST` decides which processes are lost.

    Each item has the number of attempts after which a lost delivery is not sent again.
    """
    return [_rescue(transaction, criteria, max_attempts) for criteria, max_attempts in batch]


def _rescue(transaction: Transaction, criteria: LostCriteria, max_attempts: int) -> list[RescuedJob | GivenUpDelivery]:
    lost = lost_parameters(transaction, criteria)
    jobs = [_RunningJob(*row) for row in within_bounds(transaction.all("lost_jobs", lost))]
    rescued: list[RescuedJob | GivenUpDelivery] = [
        _lose(transaction, job, LossReason.PROCESS_DIED if job.owner in criteria.dead else LossReason.LEASE_EXPIRED)
        for job in jobs
    ]
    if rescued:
        transaction.topics.add(Topic.CANCEL)
        # What has just ended one process may soon end another; no suspect starts in the meantime.
        transaction.change("postpone_suspects", {"until": transaction.now + _in_milliseconds(exponential(1))})
    rescued += _release_deliveries(transaction, lost, max_attempts)
    if transaction.change("release_lost_polls", lost):
        transaction.topics.add(Topic.POLL)
    return rescued


def _release_deliveries(transaction: Transaction, lost: dict[str, Any], max_attempts: int) -> list[GivenUpDelivery]:
    """Make lost deliveries due again. Returns those that are given up instead."""
    deliveries = transaction.all("release_lost_deliveries", {**lost, "max_attempts": max_attempts})
    if deliveries:
        # The outcome is not known. The recorded attempt shows the operator why the delivery is repeated or dead.
        attempts = [(row[0], row[1], transaction.now, 0.0, None, LOST_SENDER, b"") for row in deliveries]
        transaction.rows("insert_delivery_attempts", attempts)
        transaction.topics.add(Topic.DELIVERY)
    return [
        GivenUpDelivery(delivery_id, format_request_id(key, tail), WebhookKind(kind), host, attempt, LOST_SENDER)
        for delivery_id, attempt, state, kind, host, key, tail in deliveries
        if state == DeliveryState.DEAD
    ]


def _lose(transaction: Transaction, job: _RunningJob, reason: LossReason) -> RescuedJob:
    outcome = _end_if_decided(transaction, job)
    if outcome is None and (job.fails_on_crash or job.is_last):
        outcome = LOST
        _finish(transaction, job, outcome)
    if outcome is not None:
        transaction.change("clear_token", (job.key,))
        return job.rescued_as(transaction, end_of(outcome).state, outcome)
    transaction.change("insert_suspect", (job.key, reason))
    transaction.change("delete_release_count", (job.key,))
    delay = exponential(job.attempt)
    max_attempts = attempts_allowed(RetryCause.CONNECTION_ERROR, job.policy)
    line = loss_line(transaction.now, job.attempt, max_attempts, reason, delay)
    _requeue(transaction, job, _in_milliseconds(delay), line, reason_of_loss(reason))
    return job.rescued_as(transaction, JobState.DELAYED)


# --- shared


def _end_if_decided(transaction: Transaction, job: _RunningJob) -> StoredResponse | Failure | None:
    """End a job that has an early result or is to be cancelled, instead of queueing it again; the outcome, if it was ended."""
    if job.task and (outcome := finish_with_early_result(transaction, job.key, job.token, job.webhook)):
        return outcome
    if job.cancelling:
        _finish(transaction, job, CANCELLED)
        return CANCELLED
    return None


def _finish(transaction: Transaction, job: _RunningJob, failure: Failure) -> None:
    finish(transaction, [(job.key, job.token, job.webhook, failure, True)])
    if job.task:
        transaction.counters.end_task()


def _requeue(
    transaction: Transaction,
    job: _RunningJob,
    delay: int | None,
    line: LogLine | None,
    reason: RepeatReason,
    *,
    charged: bool = True,
) -> None:
    """Queue a job at its old position, at once or after a delay in milliseconds, and record its attempt."""
    attempts.record(transaction, attempts.EndedAttempt(job.key, job.attempt, job.started_at, job.owner), reason)
    transaction.change("delete_response_chunks", (job.key,))
    if line is not None and transaction.keeps_logs:
        transaction.change("append_log_line", {"key": job.key, "lines": encode_lines([line])})
    if delay is None:
        transaction.change("requeue_job", (0 if charged else 1, job.key))
    else:
        transaction.change("delay_job", (transaction.now + delay, job.key))
    transaction.counters.invalidate()
    transaction.topics.add(Topic.WORK)


def _in_milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
