"""What a job may be asked for beyond a plain submission: a target, a callback, a signal, polling, a backoff."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from .struct import Struct


class Backoff(StrEnum):
    """How the waits between the attempts of a task grow."""

    EXPONENTIAL = "exponential"
    LINEAR = "linear"


StatusValue = str | bool | int | float
"""A status as it may appear in JSON."""


class PollConfig(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """How an external service is polled, and how its responses are read (docs/reference/protocols/asyncqueue.md).

    Statuses are compared case-insensitively.
    """

    url_template: str
    """The URL to poll; may contain `{startResult.body.<path>}`, and may be relative to the `targetUrl`."""
    status_path: str
    """Dotted path of the status in the response; if empty, the HTTP status is the status."""
    done_values: tuple[StatusValue, ...]
    fail_values: tuple[StatusValue, ...]
    running_values: tuple[StatusValue, ...] = ()
    """If not empty, any other status, or none, means done; if empty, it means not yet done."""
    interval: float = 5.0
    """Seconds between two polls; `Retry-After` of a response takes precedence."""
    max_duration: float = 600.0
    """Seconds after which the task times out."""
    result_path: str = ""
    """Dotted path of the result in the response; if empty, the whole response is the result."""
    result_url_template: str | None = None
    """The URL to fetch the result from, if the response does not contain it."""
    error_path: str = "error"
    """Dotted path of the reason of a failure."""
    progress_path: str | None = None
    """Dotted path of the progress, a number from 0 to 1."""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    """Sent with every poll; they take precedence over the headers of the task."""
    forward_auth: bool = True
    """Whether the headers of the task, except those about its body, are sent to the host of the `targetUrl`."""


class TaskSpec(Struct, frozen=True):
    """What was requested beyond a plain submission (docs/reference/protocols/asyncqueue.md, "Tasks"). It never changes."""

    base_url: str
    """URL of the queue's prefix as the submitter reached it; callback URLs begin with it."""
    wait_timeout: float
    """Seconds for which the job waits for the external service."""
    callback: bool = False
    """The request contains the placeholder of the callback URL."""
    signal: bool = False
    target: str = ""
    """As the submitter wrote it, `https://…` or `/…`; empty for a plain submission that awaits a callback."""
    method: str = ""
    is_external: bool = False
    """The target is another host and not the wrapped application."""
    timeout: float | None = None
    """Seconds for one attempt; None for the queue's `request_timeout`."""
    backoff: Backoff | None = None
    provider: str | None = None
    poll: PollConfig | None = None
    due_at: int | None = None
    """The time before which the task was not to start, in milliseconds since 1970."""


class Task(Struct, frozen=True):
    """What is stored beside a job that may await an external service. It contains only hashes of its two secret ids."""

    spec: TaskSpec
    salt: bytes
    """16 random bytes from which the ids are derived."""
    callback_hash: bytes
    """SHA-256 of the callback id."""
    signal_hash: bytes | None = None
    """SHA-256 of the signal token, if there is one."""
    is_listed: bool = False
    """Whether the job was created as a task, so that the routes of tasks show it."""
