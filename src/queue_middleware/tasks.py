"""The nouns of tasks and of what waits: what may end it from outside, and how it is seen. Times are milliseconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from .models import Failure, Headers, Job, JobState, StoredResponse
from .taskspec import PollConfig, Task, TaskSpec
from .value import Value


class TaskStatus(StrEnum):
    """AsyncQueue's words for where a task stands. The last four are final."""

    PENDING = "pending"
    DELAYED = "delayed"
    PROCESSING = "processing"
    POLLING = "polling"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class Channel(StrEnum):
    """By which way the word came that ended a job from outside."""

    CALLBACK = "callback"
    SIGNAL = "signal"
    POLL = "poll"


class SecretId(StrEnum):
    """Which of a task's two secret ids."""

    CALLBACK = "callback"
    SIGNAL = "signal"


class Wait(Value, frozen=True):
    """What an answer leaves a job waiting for."""

    seconds: float
    """Until it has timed out."""
    poll_in: float | None = None
    """Seconds until the provider is asked for the first time; None for never."""
    poll: PollConfig | None = None
    """How, where it is not as the task says: an answer may say where its end can be asked for."""
    credentials: Headers = ()
    """Of the call, for the polls. Erased when the job ends."""


class Waiter(Value, frozen=True):
    """A job that somebody outside has named by one of its secret ids."""

    key: int
    request_id: str
    state: JobState
    task: Task
    resolved_by: Channel | None
    """None as long as it has not been ended from outside, and where it ended otherwise."""


class Resolution(Value, frozen=True):
    """The last word of somebody outside. With `failure` the job fails, and the response is what was said."""

    response: StoredResponse
    failure: Failure | None = None


class Resolved(StrEnum):
    """What became of a last word."""

    ENDED = "ended"
    """It ended the job."""
    KEPT = "kept"
    """It will, as soon as the running attempt has ended."""
    REPEATED = "repeated"
    """An earlier word by the same way did; that one stays."""
    TOO_LATE = "too_late"
    """The job has ended otherwise."""


class Poll(Value, frozen=True):
    """The right to ask a provider once how far he is."""

    key: int
    request_id: str
    token: int
    number: int
    """1 for the first."""
    troubles: int
    """How many before this one, without a break, came to nothing."""
    task: Task
    config: PollConfig
    start: StoredResponse
    """The answer to the first call. Of one in parts only the last is in `body`."""
    waits_until: int
    """When the job times out; a poll at that moment or later is the last."""
    credentials: Headers
    host: str
    """Whom it goes to first, as far as the templates and the target say."""


class Places(Value, frozen=True):
    """How many questions to providers may be begun now, in this process. `turns` is the law of it."""

    limit: int
    strangers: int
    """How many of them to hosts that are not `prompt`."""
    each: int
    """How many one host may be asked at once, those under way included."""
    busy: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Questions under way, by host."""
    prompt: frozenset[str] = frozenset()
    """Hosts that are known to answer promptly."""


class ClaimedPolls(Value, frozen=True):
    """Polls that were given out, and when it is worth asking again, unless a place becomes free before."""

    polls: list[Poll]
    next_in: float | None = None
    """Seconds; None where nothing is due later."""


class TaskRecord(Value, frozen=True):
    """A task as its owner may see it."""

    job: Job
    spec: TaskSpec
    status: TaskStatus
    priority: int
    """The job's: smaller runs first."""
    max_attempts: int
    due_at: int | None
    webhook: str | None
    resolved_by: Channel | None = None
    event: str | None = None
    """The last word from outside that was not the end."""
    response: StoredResponse | None = None
    """The target's answer or the provider's last word; only of a finished task, and only where one was asked for."""


class TaskPage(Value, frozen=True):
    """Some of somebody's tasks, the newest first, without their answers."""

    tasks: list[TaskRecord]
    total: int
    """How many there are in all."""
