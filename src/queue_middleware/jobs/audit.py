"""What operators have done, as it is recorded."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeGuard

from queue_middleware.errors import BadRequest

from .struct import Struct

MAX_AUDIT_RECORDS = 10_000
"""The oldest are deleted."""
APPLICATION = "application"
"""The operator of an act that names none: the code that calls the methods of the queue."""
QUEUE = "queue"
"""The operator of what the queue does by itself: it resumes when the time of a pause is over."""
_LONGEST_OPERATOR = 256
"""Characters."""


def is_operator(name: object) -> TypeGuard[str]:
    """Whether an act can be recorded under this name: it is printable and has 1 to 256 characters."""
    return isinstance(name, str) and name.isprintable() and 0 < len(name) <= _LONGEST_OPERATOR


def checked_operator(name: object) -> str:
    """The name under which an act is recorded. Raises `BadRequest` unless `is_operator`."""
    if not is_operator(name):
        raise BadRequest("the operator of an act is a name of 1 to 256 printable characters")
    return name


class Action(StrEnum):
    """What an operator can do."""

    CANCEL = "cancel"
    REPLAY = "replay"
    RUN_NOW = "run_now"
    PAUSE = "pause"
    RESUME = "resume"
    REDELIVER = "redeliver"
    PROBE = "probe"
    IMPORT = "import"


class AuditRecord(Struct, frozen=True):
    """One act of an operator."""

    id: int
    """Rises with time."""
    at: int
    operator: str
    action: Action
    target: str
    """A request id, a delivery id, a host, a route, or the conditions of a selection."""
    count: int
    """How many requests or webhooks were changed."""
