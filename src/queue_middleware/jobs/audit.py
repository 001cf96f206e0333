"""What operators have done, as it is recorded."""

from __future__ import annotations

from enum import StrEnum

from .struct import Struct

MAX_AUDIT_RECORDS = 10_000
"""The oldest are deleted."""


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
