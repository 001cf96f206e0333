"""The nouns of what is asked of a job beyond a plain submission."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from .struct import Struct


class Backoff(StrEnum):
    """How the waits between a task's attempts grow."""

    EXPONENTIAL = "exponential"
    LINEAR = "linear"


StatusValue = str | bool | int | float
"""A status, as JSON may spell it."""


class PollConfig(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """How a service is asked whether it is done, and how its answers are read (AsyncQueue contract, provider polling).

    Statuses are compared without regard to upper and lower case.
    """

    url_template: str
    """Where to ask: `{startResult.body.<path>}`, relative to the `targetUrl`."""
    status_path: str
    """Where the status stands in the answer, with dots; empty: the HTTP status is the status."""
    done_values: tuple[StatusValue, ...]
    fail_values: tuple[StatusValue, ...]
    running_values: tuple[StatusValue, ...] = ()
    """With these, every status that is in none of the lists, and none at all, means done. Without, it means not yet."""
    interval: float = 5.0
    """Seconds between two questions; `Retry-After` of an answer counts instead."""
    max_duration: float = 600.0
    """Seconds after which it is a time-out."""
    result_path: str = ""
    """Which part of the answer is the result; empty: all of it."""
    result_url_template: str | None = None
    """Where the result is to be fetched from, if it is not in the answer."""
    error_path: str = "error"
    """Where the reason of a failure stands."""
    progress_path: str | None = None
    """Where a number from 0 to 1 stands that says how far it is."""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    """Sent with every question, over the task's own."""
    forward_auth: bool = True
    """Whether the task's own headers, without those about its body, are sent to the host of the `targetUrl`."""


class TaskSpec(Struct, frozen=True):
    """What is asked of a job beyond a plain submission (AsyncQueue contract, "Tasks"). It never changes."""

    base_url: str
    """URL of the prefix, as the submitter reached it; callbacks arrive below it."""
    wait_timeout: float
    """Seconds for which it waits, once it waits."""
    callback: bool = False
    """The place of the callback URL stands somewhere in the request."""
    signal: bool = False
    target: str = ""
    """As the submitter wrote it, `https://…` or `/…`; empty for a plain submission that waits."""
    method: str = ""
    is_external: bool = False
    """The target is another host, and not the wrapped application."""
    timeout: float | None = None
    """Seconds for one attempt; None for the queue's `request_timeout`."""
    backoff: Backoff | None = None
    provider: str | None = None
    poll: PollConfig | None = None


class Task(Struct, frozen=True):
    """What is stored beside a job that may wait. Of its two secret ids it holds only the hashes."""

    spec: TaskSpec
    salt: bytes
    """16 random bytes, from which the ids are derived."""
    callback_hash: bytes
    """SHA-256 of the callback id."""
    signal_hash: bytes | None = None
    """SHA-256 of the signal token, where there is one."""
    is_listed: bool = False
    """Whether it was made as a task, and is read as one."""
