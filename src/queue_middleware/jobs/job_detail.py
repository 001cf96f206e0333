"""Everything that operators see of one request."""

from __future__ import annotations

from .models import Job, NewJob
from .struct import Struct


class JobDetail(Struct, frozen=True):
    """A job with what only operators see."""

    job: Job
    method: str
    """The HTTP method of the call; empty if its route is `routes.OTHER`."""
    route: str
    priority: int
    max_attempts: int
    due_at: int | None
    start_by: int | None
    webhook_host: str | None
    """The host of its webhook; never its URL, which may contain a key."""
    is_cancelling: bool
    process: str | None
    """The process that runs it, as in `processes.ProcessRecord.owner`."""
    request_bytes: int | None
    """Size of the body; None if the request is not kept."""
    response_bytes: int | None
    log_lines: int
    kept_until: int | None
    """Until when an ended request can be submitted again; None if it is not kept."""
    original: str | None
    """The request of which this one is a copy."""
    copies: tuple[str, ...]
    """The copies of this request, the oldest first; at most 100."""


class KeptRequest(Struct, frozen=True):
    """A request that can be submitted again."""

    job: NewJob
    """As it was submitted, without an idempotency key, a start deadline and a start time."""
    kept_until: int | None
    """None if the job has not ended."""
