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
    RESCUE = "lose"
    DUE = "due"
    EXPIRE = "expire"
    CANCEL = "cancel"
    AWAIT = "wait"
    """It was answered, and somebody outside goes on with it."""
    RESOLVE = "resolve"
    """Who was at work outside is done."""
    REJECT = "reject"
    """Who was at work outside has failed."""
    TIME_OUT = "time_out"
    """Nobody has called back."""


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
    # The request to cancel a running job is only noted; the attempt ends itself, and then it is cancelled.
    (JobState.RUNNING, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobEvent.AWAIT): JobState.AWAITING,
    (JobState.AWAITING, JobEvent.RESOLVE): JobState.COMPLETED,
    (JobState.AWAITING, JobEvent.REJECT): JobState.FAILED,
    (JobState.AWAITING, JobEvent.TIME_OUT): JobState.FAILED,
    (JobState.AWAITING, JobEvent.CANCEL): JobState.CANCELLED,
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
