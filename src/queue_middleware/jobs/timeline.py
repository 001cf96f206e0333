"""What happened to one request, in order of time."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from .struct import Struct


class TimelineKind(StrEnum):
    """What one entry of a timeline reports."""

    SUBMITTED = "submitted"
    ATTEMPT_STARTED = "attempt_started"
    ATTEMPT_ENDED = "attempt_ended"
    """An attempt that was not the last one."""
    AWAITING = "awaiting"
    """The call has returned; an external service continues the work."""
    ENDED = "ended"
    DELIVERY_ATTEMPT = "delivery_attempt"
    COPIED = "copied"
    """An operator has submitted the request again."""
    OPERATED = "operated"
    """An operator has cancelled, replayed or redelivered it."""


class TimelineEntry(Struct, frozen=True):
    """One entry."""

    at: int
    kind: TimelineKind
    data: Mapping[str, str | int | float | None] = msgspec.field(default_factory=dict)
    """Depends on the kind; docs/reference/api.md lists the names."""
