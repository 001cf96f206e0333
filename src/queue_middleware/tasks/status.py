"""The rule for the status of a task in AsyncQueue's API. Stores select tasks by it; the conformance suite compares."""

from __future__ import annotations

from queue_middleware.jobs.models import ErrorType, Job, JobState
from queue_middleware.jobs.states import FINAL
from queue_middleware.jobs.task_spec import TaskSpec

from .models import TaskStatus

_BY_STATE = {
    JobState.QUEUED: TaskStatus.PENDING,
    JobState.RUNNING: TaskStatus.PROCESSING,
    JobState.CANCELLED: TaskStatus.CANCELLED,
}


def task_status(
    spec: TaskSpec,
    state: JobState,
    *,
    attempt: int = 0,
    is_polled: bool = False,
    is_resolved: bool = False,
    status: int | None = None,
    error_type: ErrorType | None = None,
) -> TaskStatus:
    """The status of a task whose job is in `state`.

    A delayed task waits for its own time before the first attempt, and for a retry after it. `is_polled`: its next poll is
    scheduled. `is_resolved`: an external service has given the final result. `status` is the HTTP status of the stored
    response: without a result from an external service an error status means failure, from 400 on where a callback, signal or
    poll was expected, from 500 on otherwise.
    """
    if state in _BY_STATE:
        return _BY_STATE[state]
    if state is JobState.DELAYED:
        return TaskStatus.PENDING if attempt else TaskStatus.DELAYED
    has_secret, expects_nothing = spec.callback or spec.signal, not (spec.callback or spec.signal or spec.poll)
    if state is JobState.AWAITING:
        polling = (not has_secret and not expects_nothing) or (expects_nothing and is_polled)
        return TaskStatus.POLLING if polling else TaskStatus.WAITING
    if state is JobState.COMPLETED:
        has_failed = not is_resolved and status is not None and status >= (500 if expects_nothing else 400)
        return TaskStatus.FAILED if has_failed else TaskStatus.COMPLETED
    return TaskStatus.TIMEOUT if error_type is ErrorType.WAIT_TIMEOUT else TaskStatus.FAILED


def has_other_status(spec: TaskSpec, earlier: Job, job: Job) -> bool:
    """Whether a task that had not ended has another status since, as far as the state of its job decides it."""

    def before_end(state: JobState, attempt: int) -> TaskStatus:
        return task_status(spec, state, attempt=attempt)

    return job.state in FINAL or before_end(job.state, job.attempt) != before_end(earlier.state, earlier.attempt)
