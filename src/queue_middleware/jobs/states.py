"""The transition table of a job: which event leads from which state to which.

The stores execute these transitions as guarded SQL statements; the conformance suite compares every statement with the table.
"""

from __future__ import annotations

from enum import StrEnum

from .models import JobState


class JobEvent(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"
    COMPLETE = "complete"
    FAIL = "fail"
    RETRY = "retry"
    RELEASE = "release"
    RESCUE = "rescue"
    DUE = "due"
    EXPIRE = "expire"
    CANCEL = "cancel"
    AWAIT = "await"
    """The call was answered, and an external service continues the work."""
    RESOLVE = "resolve"
    """The external service has finished."""
    REJECT = "reject"
    """The external service has failed."""
    TIME_OUT = "time_out"
    """No callback, signal or poll ended the wait in time."""


JOB_TRANSITIONS: dict[tuple[JobState, JobEvent], JobState] = {
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
    (JobState.RUNNING, JobEvent.RESCUE): JobState.DELAYED,
    # Cancelling a running job only sets a flag; the attempt ends itself, and then the job is cancelled.
    (JobState.RUNNING, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobEvent.AWAIT): JobState.AWAITING,
    (JobState.AWAITING, JobEvent.RESOLVE): JobState.COMPLETED,
    (JobState.AWAITING, JobEvent.REJECT): JobState.FAILED,
    (JobState.AWAITING, JobEvent.TIME_OUT): JobState.FAILED,
    (JobState.AWAITING, JobEvent.CANCEL): JobState.CANCELLED,
    # The response to the call was lost and the call is to be repeated, but the external service already reports the result.
    # While an attempt runs, such a result is only stored; it takes effect when the attempt has ended.
    (JobState.QUEUED, JobEvent.RESOLVE): JobState.COMPLETED,
    (JobState.QUEUED, JobEvent.REJECT): JobState.FAILED,
    (JobState.DELAYED, JobEvent.RESOLVE): JobState.COMPLETED,
    (JobState.DELAYED, JobEvent.REJECT): JobState.FAILED,
}
"""A transition that is not in this table is refused: the store changes nothing and reports that."""

FINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
IN_QUEUE = frozenset({JobState.QUEUED, JobState.DELAYED})
