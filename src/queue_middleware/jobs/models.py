"""The nouns: frozen values that travel between the floors. Times are integer milliseconds since 1970, UTC."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum

import msgspec

from .mount import Mount
from .struct import Struct
from .task_spec import Backoff, Task

Headers = tuple[tuple[bytes, bytes], ...]
"""Names in lower case, as in the ASGI specification; order and repeats kept."""


class JobState(StrEnum):
    """Where a job stands. The last three are final."""

    QUEUED = "queued"
    DELAYED = "delayed"
    RUNNING = "running"
    AWAITING = "awaiting"
    """Its call was answered, and somebody outside is at work: a callback, a signal or a poll will end it."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WebhookKind(StrEnum):
    """What a webhook tells. Only the last is sent unasked."""

    STARTED = "started"
    PROGRESS = "progress"
    COMPLETED = "completed"


class Priority(IntEnum):
    """Smaller runs first."""

    NORMAL = 5
    LOW = 9


class RetryCause(StrEnum):
    """Why an attempt may be repeated: the three keys of fal's `X-Fal-Retry-Config`, and our own lost lease."""

    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION_ERROR = "connection_error"


class ErrorType(StrEnum):
    """fal's `error_type` words that this project uses (fal queue contract, section 7)."""

    REQUEST_TIMEOUT = "request_timeout"
    RUNNER_DISCONNECTED = "runner_disconnected"
    RUNNER_INCOMPLETE_RESPONSE = "runner_incomplete_response"
    RUNNER_SERVER_ERROR = "runner_server_error"
    RUNNER_CONNECTION_ERROR = "runner_connection_error"
    RUNNER_CONNECTION_REFUSED = "runner_connection_refused"
    CLIENT_CANCELLED = "client_cancelled"
    START_TIMEOUT = "start_timeout"
    WAIT_TIMEOUT = "wait_timeout"
    """Nobody called back in time."""
    PROVIDER_FAILED = "provider_failed"
    """Who was at work outside said that it failed."""


class StoredRequest(Struct, frozen=True):
    """An HTTP request as it will be replayed: only what the application may see."""

    method: str
    root_path: str
    raw_path: bytes
    """Percent-encoded, root path included, no query."""
    query: bytes
    headers: Headers
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: str
    http_version: str
    body: bytes
    mount: Mount | None = None


class RetryPolicy(Struct, frozen=True):
    """How often one request may be run."""

    max_attempts: int
    """All attempts together, the first included."""
    extra: Mapping[RetryCause, int] = msgspec.field(default_factory=dict)
    """Extra attempts allowed for one cause, where the submitter said so."""
    backoff: Backoff | None = None
    """Set where AsyncQueue's rules of what is repeated hold, and not fal's."""


IDENTITY_PREFIX = "id:"
"""Stands in front of an identity, to tell it from an address."""


def identity_of(client: str) -> str | None:
    """The identity in `NewJob.client`; None where it is an address."""
    return client[len(IDENTITY_PREFIX) :] if client.startswith(IDENTITY_PREFIX) else None


class NewJob(Struct, frozen=True):
    """A submission that was found good and may be stored."""

    request: StoredRequest
    client: str
    """Who the per-client limit counts: `OWNED` and the identity that the request belongs to, or else the address."""
    retry: RetryPolicy
    priority: int = Priority.NORMAL
    start_timeout: float | None = None
    """Seconds from now within which it must have started."""
    webhook: str | None = None
    max_queue_length: int | None = None
    """Refused when more than this many are waiting."""
    short_lived: bool = False
    """Its answer is not to be stored for longer than it takes to fetch it."""
    due_at: int | None = None
    """Not to be started before."""
    task: Task | None = None
    events: tuple[WebhookKind, ...] = ()
    """What the webhook is to be told besides the end."""


class Claim(Struct, frozen=True):
    """The right to run one attempt of a job. Every write of the attempt names its token."""

    key: int
    request_id: str
    token: int
    attempt: int
    """1 for the first."""
    retry: RetryPolicy
    request: StoredRequest
    webhook: str | None
    events: tuple[WebhookKind, ...] = ()
    task: Task | None = None


class SubmitResult(Struct, frozen=True):
    """What a submission is answered with."""

    request_id: str
    position: int
    """Requests in front, 0-based."""
    claim: Claim | None = None
    """Set where the job was started in the same transaction."""


CHUNK_SIZE = 256 * 1024
"""Bytes of each piece of an answer but the last."""


class StoredResponse(Struct, frozen=True):
    """What the application answered. `parts` counts the pieces stored before `body`, which is the last one."""

    status: int
    headers: Headers
    body: bytes
    chunks: int = 0

    @property
    def size(self) -> int:
        """Bytes of the whole body."""
        return self.chunks * CHUNK_SIZE + len(self.body)


class Failure(Struct, frozen=True):
    """A request that ends without an answer of the application."""

    error_type: ErrorType
    detail: str


class Progress(Struct, frozen=True):
    """What the handler says about how far it is."""

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
    """Requests in front, 0-based; only while it waits."""
    progress: Progress | None
    created_at: int
    started_at: int | None
    finished_at: int | None
    status: int | None
    """HTTP status of the application's answer; only when completed."""
    failure: Failure | None
    client: str = ""
    """See `NewJob.client`."""
    is_task: bool = False
    """Whether it was made as a task, and its end is told as one's."""

    @property
    def identity(self) -> str | None:
        """Whom it belongs to; None where nobody was asked who he is."""
        return identity_of(self.client)


class JobSnapshot(Struct, frozen=True):
    """A job as somebody sees it who looks at it again and again."""

    job: Job
    """Without a position where none was asked for."""
    last_line: int
    """The number of its last log line, 0 where there is none."""


class JobResult(Struct, frozen=True):
    """A finished job with its answer; `response` is None where it ended in `job.failure`."""

    job: Job
    response: StoredResponse | None
    external: bool = False
    """Whether an external service gave the response. Known where one result is asked for."""


class CancelOutcome(StrEnum):
    """What a cancellation met."""

    CANCELLED = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class RescuedJob(Struct, frozen=True):
    """What became of a job whose worker was lost, or whose time is over."""

    request_id: str
    state: JobState
    attempt: int = 0
    """The one that was lost; 0 where none was running."""
    outcome: StoredResponse | Failure | None = None
    """How it ended; None where it goes on."""
