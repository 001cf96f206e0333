"""The laws of a job, as literal tables. The SQL guards say the same, and the store suite holds them to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from .ends import Outcome
from .models import ErrorType, Failure, Job, JobState, RetryCause, RetryPolicy, StoredResponse


class JobEvent(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"
    COMPLETE = "complete"
    FAIL = "fail"
    RETRY = "retry"
    RELEASE = "release"
    LOSE = "lose"
    DUE = "due"
    EXPIRE = "expire"
    CANCEL = "cancel"
    WAIT = "wait"
    """It was answered, and somebody outside goes on with it."""
    RESOLVE = "resolve"
    """Who was at work outside is done."""
    REJECT = "reject"
    """Who was at work outside has failed."""
    TIME_OUT = "time_out"
    """Nobody has called back."""


JOB: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.CLAIM): JobState.RUNNING,
    (JobState.QUEUED, JobEvent.EXPIRE): JobState.FAILED,
    (JobState.QUEUED, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.DELAYED, JobEvent.DUE): JobState.QUEUED,
    (JobState.DELAYED, JobEvent.EXPIRE): JobState.FAILED,
    (JobState.DELAYED, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobEvent.COMPLETE): JobState.COMPLETED,
    (JobState.RUNNING, JobEvent.FAIL): JobState.FAILED,
    (JobState.RUNNING, JobEvent.RETRY): JobState.DELAYED,
    (JobState.RUNNING, JobEvent.RELEASE): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.LOSE): JobState.DELAYED,
    # The request to cancel a running job is only noted; the attempt ends itself, and then it is cancelled.
    (JobState.RUNNING, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobEvent.WAIT): JobState.WAITING,
    (JobState.WAITING, JobEvent.RESOLVE): JobState.COMPLETED,
    (JobState.WAITING, JobEvent.REJECT): JobState.FAILED,
    (JobState.WAITING, JobEvent.TIME_OUT): JobState.FAILED,
    (JobState.WAITING, JobEvent.CANCEL): JobState.CANCELLED,
    # The call's answer was lost, and is to be repeated, when somebody outside says that he has long been at work.
    # While it runs his word is only kept; the attempt ends itself, and then it counts.
    (JobState.QUEUED, JobEvent.RESOLVE): JobState.COMPLETED,
    (JobState.QUEUED, JobEvent.REJECT): JobState.FAILED,
    (JobState.DELAYED, JobEvent.RESOLVE): JobState.COMPLETED,
    (JobState.DELAYED, JobEvent.REJECT): JobState.FAILED,
}
"""Everything that is not in this table does not happen: the store changes nothing and says so."""

FINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
IN_QUEUE = frozenset({JobState.QUEUED, JobState.DELAYED})


class Holder(StrEnum):
    """Who holds a claim that is judged, as far as the judging process knows."""

    ITSELF = "itself"
    """The judging process, and it still works on it."""
    DEAD = "dead"
    """A process that is certainly dead: the kernel released its life sign, or it belongs to an earlier boot."""
    OTHER = "other"
    """Another process, or the judging process where it has forgotten the claim."""


IS_LOST: dict[tuple[Holder, bool, bool], bool] = {
    # (holder, is the lease over?, is the judge calm?)
    **{(Holder.ITSELF, over, calm): False for over in (False, True) for calm in (False, True)},
    **{(Holder.DEAD, over, calm): True for over in (False, True) for calm in (False, True)},
    (Holder.OTHER, False, False): False,
    (Holder.OTHER, False, True): False,
    (Holder.OTHER, True, False): False,
    (Holder.OTHER, True, True): True,
}
"""Whether a claim (an attempt, a delivery, a poll) is taken from its holder. The law of leases, for every store:

1. A process renews its own leases before it judges any, in the same transaction.
2. It never takes what it still works on itself. A claim that it has forgotten, by whatever defect, is judged like another's.
3. It judges a lease only when it is calm: the database has been there for a whole lease, as seen by this process (`Pulse`).
   In an outage no process can renew, so an outage is no sign of death.
4. Death that is certain is judged at once. It needs no lease and no calm.
5. Leases are measured on the boot clock, so that setting the wall clock ends none.
"""


@dataclass(frozen=True, slots=True)
class Pulse:
    """How long a process has had the database before it without a gap. All values are milliseconds on the boot clock.

    A process commits something every quarter of a lease, also when it has nothing to renew. A longer gap means that the
    database was away (locked, full, unreadable), or that the process was (stopped, suspended, just started): others may have
    been unable to renew, so for one whole lease after it no lease is judged.
    """

    at: int
    """Of the last commit."""
    calm_from: int

    @classmethod
    def begin(cls, now: int, lease: int) -> Self:
        """At the start of a process."""
        return cls(now, now + lease)

    def beat(self, now: int, lease: int) -> Self:
        """After a commit."""
        return replace(self, at=now, calm_from=now + lease if self._is_late(now, lease) else self.calm_from)

    def is_calm(self, now: int, lease: int) -> bool:
        """Whether leases may be judged."""
        return now >= self.calm_from and not self._is_late(now, lease)

    def _is_late(self, now: int, lease: int) -> bool:
        # Half a lease. Who renewed a quarter of a lease before the gap still has a quarter in which to renew after it.
        return now - self.at > lease // 2


CANCELLED = Failure(ErrorType.CLIENT_CANCELLED, "Request was cancelled")
LOST = Failure(ErrorType.RUNNER_DISCONNECTED, "worker lost: the process that ran this request died or hung")
STOPPED_TOO_OFTEN = Failure(
    ErrorType.RUNNER_DISCONNECTED, "the process that ran this request was ended again and again soon after its start"
)
OVERDUE = Failure(ErrorType.START_TIMEOUT, "the request did not start before its deadline")
UNANSWERED = Failure(ErrorType.WAIT_TIMEOUT, "nobody called back in time")
UNREADABLE = Failure(ErrorType.RUNNER_SERVER_ERROR, "the stored request cannot be read by this release")

RETRIED_STATUS: dict[int, RetryCause] = {503: RetryCause.SERVER_ERROR, 504: RetryCause.SERVER_ERROR}
RETRIED_FAILURE: dict[ErrorType, RetryCause] = {
    ErrorType.RUNNER_INCOMPLETE_RESPONSE: RetryCause.SERVER_ERROR,
    ErrorType.RUNNER_DISCONNECTED: RetryCause.CONNECTION_ERROR,
    ErrorType.REQUEST_TIMEOUT: RetryCause.TIMEOUT,
    ErrorType.RUNNER_CONNECTION_ERROR: RetryCause.CONNECTION_ERROR,
}
RETRIED_TASK_FAILURE: dict[ErrorType, RetryCause] = {
    **RETRIED_FAILURE,
    ErrorType.RUNNER_SERVER_ERROR: RetryCause.SERVER_ERROR,
}
"""A task's attempt that ended without an answer, or with a 5xx, is repeated (AsyncQueue contract, "Tasks")."""

FREE_HAND_BACKS = 2
"""How often in a row a process that ends in order may hand a request back; from then on each is charged as an attempt."""
LONG_ATTEMPT = 600_000
"""Milliseconds. An attempt that had run for so long when it was handed back is not counted, and the next is the first in a row:
a deployment now and then ends no request, however long it takes."""

_LONGEST_RETRY_AFTER = 3600

LARGE = 10_000
"""Bytes of an answer that is large."""
SHORT = 3_600_000
"""Milliseconds after its end for which an answer can be read that is not to be stored (fal queue contract, section 5)."""
SHORT_IF_LARGE = 360_000
"""The same for a large one."""


@dataclass(frozen=True, slots=True)
class Again:
    """The verdict that an attempt is to be repeated. `after` is what the application asked for, in seconds."""

    cause: RetryCause
    after: float | None = None


def judge(outcome: StoredResponse | Failure, attempt: int, policy: RetryPolicy) -> Again | None:
    """Whether an attempt that ended like this is repeated (fal queue contract, section 8); None means it stands."""
    again = _reason(outcome) if policy.backoff is None else _task_reason(outcome)
    return again if again and attempts_left(attempt, again.cause, policy) else None


def attempts_left(attempt: int, cause: RetryCause, policy: RetryPolicy) -> bool:
    """Whether there is another attempt after attempt number `attempt`, for this cause."""
    return attempt < attempts_allowed(cause, policy)


def attempts_allowed(cause: RetryCause, policy: RetryPolicy) -> int:
    """How many there are in all, as far as this cause is concerned."""
    return 1 + policy.extra[cause] if cause in policy.extra else policy.max_attempts


def run_time(job: Job) -> int | None:
    """Milliseconds from the start of its last attempt to its end; never below 0, whatever was done to the clock meanwhile."""
    if job.started_at is None or job.finished_at is None:
        return None
    return max(0, job.finished_at - job.started_at)


def outcome_of(ended: StoredResponse | Failure) -> Outcome:
    """The class of what a request ended with."""
    if isinstance(ended, Failure):
        return Outcome.CANCELLED if ended.error_type is ErrorType.CLIENT_CANCELLED else Outcome.FAILED
    return Outcome(f"{ended.status // 100}xx") if 200 <= ended.status < 600 else Outcome.OTHER


def _reason(outcome: StoredResponse | Failure) -> Again | None:
    if isinstance(outcome, Failure):
        cause = RETRIED_FAILURE.get(outcome.error_type)
        return Again(cause) if cause else None
    if outcome.status < 400:  # the common case pays for nothing more than this unless the application overrides it
        wanted = _header(outcome, b"x-fal-needs-retry")
        return Again(RetryCause.SERVER_ERROR, _retry_after(outcome)) if wanted == b"1" else None
    return _reason_of_error(outcome)


def _reason_of_error(response: StoredResponse) -> Again | None:
    wanted = _header(response, b"x-fal-needs-retry")
    after = _retry_after(response)
    cause = RETRIED_STATUS.get(response.status)
    if wanted == b"0":
        return None
    if wanted == b"1" or (response.status == 429 and after is not None):
        return Again(cause or RetryCause.SERVER_ERROR, after)
    return Again(cause, after) if cause else None


def _task_reason(outcome: StoredResponse | Failure) -> Again | None:
    if isinstance(outcome, Failure):
        cause = RETRIED_TASK_FAILURE.get(outcome.error_type)
        return Again(cause) if cause else None
    return Again(RetryCause.SERVER_ERROR, _retry_after(outcome)) if outcome.status >= 500 else None


def _header(response: StoredResponse, name: bytes) -> bytes | None:
    for key, value in response.headers:
        if key == name:
            return value.strip()
    return None


def _retry_after(response: StoredResponse) -> float | None:
    """Seconds only; the date form (RFC 9110 §10.2.3) is treated as absent, because nobody sends it to himself."""
    value = _header(response, b"retry-after")
    if not value or not value.isdigit():
        return None
    return float(min(int(value[:9]), _LONGEST_RETRY_AFTER))
