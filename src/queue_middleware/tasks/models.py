"""The values of tasks: what an external service reports, polls, and what a client sees. Times are milliseconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from queue_middleware.jobs.models import Failure, Headers, Job, JobState, StoredResponse
from queue_middleware.jobs.struct import Struct
from queue_middleware.jobs.task_spec import PollConfig, Task, TaskSpec


class TaskStatus(StrEnum):
    """AsyncQueue's statuses of a task. The last four are final."""

    PENDING = "pending"
    DELAYED = "delayed"
    PROCESSING = "processing"
    POLLING = "polling"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class CompletionSource(StrEnum):
    """How the result of an external service arrived."""

    CALLBACK = "callback"
    SIGNAL = "signal"
    POLL = "poll"


class SecretIdKind(StrEnum):
    """Which of a task's two secret ids is meant."""

    CALLBACK = "callback"
    SIGNAL = "signal"


class Wait(Struct, frozen=True):
    """What a job waits for after the response to its call."""

    seconds: float
    """Until the job times out."""
    poll_in: float | None = None
    """Seconds until the first poll; None if the provider is not polled."""
    poll: PollConfig | None = None
    """How to poll, if the task does not say it: a response may name the URL to poll."""
    credentials: Headers = ()
    """Headers of the call that the polls repeat. Erased when the job ends."""


class PendingJob(Struct, frozen=True):
    """A job that was found by one of its secret ids."""

    key: int
    request_id: str
    state: JobState
    task: Task
    resolved_by: CompletionSource | None
    """None until an external result has ended the job, and if it ended in another way."""


class ExternalResult(Struct, frozen=True):
    """The final result of an external service. With `failure` the job fails, and `response` holds what the service sent."""

    response: StoredResponse
    failure: Failure | None = None


class ResolveOutcome(StrEnum):
    """What the store did with an external result."""

    ENDED = "ended"
    """The result ended the job."""
    DEFERRED = "deferred"
    """The result is stored and ends the job as soon as the running attempt has ended."""
    DUPLICATE = "duplicate"
    """An earlier result from the same source ended the job; the earlier one stays."""
    TOO_LATE = "too_late"
    """The job had ended in another way."""


class PollClaim(Struct, frozen=True):
    """The right to poll a provider once."""

    key: int
    request_id: str
    token: int
    number: int
    """1 for the first."""
    failures: int
    """Failed polls in a row before this one."""
    task: Task
    config: PollConfig
    start_response: StoredResponse
    """The target's response. If it is stored in chunks, `body` holds the last chunk only."""
    deadline: int
    """When the job times out; a poll at that time or later is the last."""
    credentials: Headers
    host: str
    """Origin of the first URL that is polled, as far as the templates and the target name it."""


class PollCapacity(Struct, frozen=True):
    """How many polls this process may begin now. `PollLimiter` computes it, `HostSelector` applies it."""

    limit: int
    unproven: int
    """How many of them may go to hosts that are not in `prompt`."""
    per_host: int
    """How many polls one host may have at once, the running ones included."""
    busy: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Running polls, by host."""
    prompt: frozenset[str] = frozenset()
    """Hosts that are known to respond promptly."""


class ClaimedPolls(Struct, frozen=True):
    """The polls that were claimed, and when the next claim is worthwhile unless capacity becomes free earlier."""

    polls: list[PollClaim]
    next_in: float | None = None
    """Seconds; None if nothing is due later."""


class TaskRecord(Struct, frozen=True):
    """A task as its submitter may see it."""

    job: Job
    spec: TaskSpec
    status: TaskStatus
    priority: int
    """The priority of the job: smaller numbers run first."""
    max_attempts: int
    due_at: int | None
    webhook: str | None
    resolved_by: CompletionSource | None = None
    last_status: str | None = None
    """The last status from an external service that was not final."""
    response: StoredResponse | None = None
    """The target's response or the external result; only if the task is finished and the response was requested."""


class TaskPage(Struct, frozen=True):
    """A page of one submitter's tasks, newest first, without their responses."""

    tasks: list[TaskRecord]
    total: int
    """Number of tasks on all pages."""
