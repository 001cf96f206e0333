"""The values of a job, from submission to result. Times are integer milliseconds since 1970, UTC."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum

import msgspec

from .idempotency import IdempotencyKey
from .routes import OTHER
from .struct import Struct
from .task_spec import Backoff, Task

Headers = tuple[tuple[bytes, bytes], ...]
"""Names in lower case, as in the ASGI specification; order and repeats kept."""


class JobState(StrEnum):
    """The state of a job. The last three are final."""

    QUEUED = "queued"
    DELAYED = "delayed"
    RUNNING = "running"
    AWAITING = "awaiting"
    """The call was answered and an external service is at work: a callback, a signal or a poll ends the job."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WebhookKind(StrEnum):
    """What a webhook reports. Only the last kind, the end of the job whatever it is, is sent without being requested."""

    STARTED = "started"
    PROGRESS = "progress"
    COMPLETED = "completed"


class Priority(IntEnum):
    """Smaller values run first."""

    NORMAL = 5
    LOW = 9


class RetryCause(StrEnum):
    """Why an attempt may be repeated: the three keys of fal's `X-Fal-Retry-Config`."""

    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION_ERROR = "connection_error"


class ErrorType(StrEnum):
    """The values of `error_type` that the queue uses (docs/reference/protocols/fal.md, section 7)."""

    REQUEST_TIMEOUT = "request_timeout"
    RUNNER_DISCONNECTED = "runner_disconnected"
    RUNNER_INCOMPLETE_RESPONSE = "runner_incomplete_response"
    RUNNER_SERVER_ERROR = "runner_server_error"
    RUNNER_CONNECTION_ERROR = "runner_connection_error"
    RUNNER_CONNECTION_REFUSED = "runner_connection_refused"
    CLIENT_CANCELLED = "client_cancelled"
    START_TIMEOUT = "start_timeout"
    WAIT_TIMEOUT = "wait_timeout"
    """No callback, signal or poll ended the wait in time."""
    PROVIDER_FAILED = "provider_failed"
    """The external service reported a failure."""


class Mount(Struct, frozen=True):
    """What the mounts around the queue added to the scope of one request."""

    app_root_path: str | None
    path_params: dict[str, str | int | float]
    uuids: tuple[str, ...] = ()
    """Names of those `path_params` that are UUIDs, which are stored as texts."""


class StoredRequest(Struct, frozen=True):
    """An HTTP request as it is replayed: only what the application may see."""

    method: str
    root_path: str
    raw_path: bytes
    """Percent-encoded, with the root path, without the query."""
    query: bytes
    headers: Headers
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: str
    http_version: str
    body: bytes
    mount: Mount | None = None


class RetryPolicy(Struct, frozen=True):
    """How many attempts a request may have."""

    max_attempts: int
    """All attempts, the first included."""
    extra: Mapping[RetryCause, int] = msgspec.field(default_factory=dict)
    """Additional attempts for one cause, as the submitter requested."""
    backoff: Backoff | None = None
    """If set, AsyncQueue's rules decide what is repeated; otherwise fal's."""


IDENTITY_PREFIX = "id:"
"""Prefix of a submitter identity in `NewJob.client`, which distinguishes it from a network address."""


def identity_of(client: str) -> str | None:
    """The submitter identity in `NewJob.client`; None if the value is a network address."""
    return client[len(IDENTITY_PREFIX) :] if client.startswith(IDENTITY_PREFIX) else None


class NewJob(Struct, frozen=True):
    """A validated submission, ready to be stored."""

    request: StoredRequest
    client: str
    """Names the client for its limits: `IDENTITY_PREFIX` and the submitter identity, otherwise the network address."""
    retry: RetryPolicy
    priority: int = Priority.NORMAL
    start_timeout: float | None = None
    """Seconds from now within which the job must start."""
    webhook: str | None = None
    max_queue_length: int | None = None
    """The submission is refused if more requests than this are queued."""
    unstored_response: bool = False
    """The response is kept only as long as it takes to fetch it (`outcomes.UNSTORED_RESPONSE_TTL_MS`)."""
    due_at: int | None = None
    """The job must not start before this time."""
    task: Task | None = None
    webhook_kinds: tuple[WebhookKind, ...] = ()
    """What the webhook reports besides the final state."""
    route: str = OTHER
    """The template of the call's path, one of few values (`routes.RouteTemplates`)."""
    idempotency_key: IdempotencyKey | None = None


class Claim(Struct, frozen=True):
    """The right to run one attempt of a job. Every write of the attempt names the token."""

    key: int
    request_id: str
    token: int
    attempt: int
    """1 for the first."""
    retry: RetryPolicy
    request: StoredRequest
    webhook: str | None
    webhook_kinds: tuple[WebhookKind, ...] = ()
    task: Task | None = None
    route: str = OTHER
    """As in `NewJob.route`."""
    client: str = ""
    """As in `NewJob.client`."""
    trace: str | None = None
    """The trace context of the attempt, if an instrumentation has set one (`AttemptWork`)."""


class SubmitResult(Struct, frozen=True):
    """What the store returns for a submission."""

    request_id: str
    position: int
    """The number of requests in front of it."""
    claim: Claim | None = None
    """Set if the job was started in the same transaction."""
    existing: ExistingJob | None = None
    """Set if an earlier submission with the same idempotency key has created the job. Then nothing was stored."""


CHUNK_SIZE = 256 * 1024
"""Bytes of each chunk of a stored response except the last."""


class StoredResponse(Struct, frozen=True):
    """A response of the application. `chunks` counts the chunks stored before `body`, which is the last one."""

    status: int
    headers: Headers
    body: bytes
    chunks: int = 0

    @property
    def size(self) -> int:
        """Bytes of the whole body."""
        return self.chunks * CHUNK_SIZE + len(self.body)


class Failure(Struct, frozen=True):
    """The outcome of a request that ended without a response of the application."""

    error_type: ErrorType
    detail: str


class AttemptEnd(Struct, frozen=True):
    """What became of a job when its attempt ended. `status` and `error` are set only if the job has ended with it."""

    state: JobState
    status: int | None = None
    """HTTP status of the response."""
    error: ErrorType | None = None
    """The reason why there is no response."""


class Progress(Struct, frozen=True):
    """Progress as the handler reports it."""

    fraction: float
    """0 to 1."""
    stage: str | None = None


class Job(Struct, frozen=True):
    """A job as its submitter may see it."""

    key: int
    request_id: str
    state: JobState
    attempt: int
    position: int | None
    """The number of requests in front of it; only while the job is queued or delayed."""
    progress: Progress | None
    created_at: int
    started_at: int | None
    finished_at: int | None
    status: int | None
    """HTTP status of the response; only if completed."""
    failure: Failure | None
    client: str = ""
    """The client that submitted the job, as in `NewJob.client`."""
    is_listed_task: bool = False
    """Whether the job was created as a task, which decides the format of its webhook."""

    @property
    def identity(self) -> str | None:
        """The submitter identity that owns the job; None without authentication."""
        return identity_of(self.client)


class ExistingJob(Struct, frozen=True):
    """The job that a submission was to create, and that an earlier one has created."""

    job: Job
    task: Task | None


class JobSnapshot(Struct, frozen=True):
    """The state of a job for a status stream."""

    job: Job
    """Without a position unless one was requested."""
    last_line: int
    """The number of its last log line; 0 without log lines."""


class JobResult(Struct, frozen=True):
    """A finished job with its response, which is None if the job ended in `job.failure`."""

    job: Job
    response: StoredResponse | None
    external: bool = False
    """Whether the response came from an external service. Set only when a single result is requested."""


class CancelOutcome(StrEnum):
    """What a cancellation found: a job that it ended at once, one that is running, or one that had finished."""

    CANCELLED = "cancelled"
    RUNNING = "running"
    FINISHED = "finished"


class RescuedJob(Struct, frozen=True):
    """The new state of a job whose worker was lost or whose time limit passed."""

    request_id: str
    state: JobState
    attempt: int = 0
    """The attempt that was lost; 0 if none was running."""
    outcome: StoredResponse | Failure | None = None
    """The outcome of the job; None if it continues."""
    route: str = OTHER
    """As in `NewJob.route`, for a job whose worker was lost."""
