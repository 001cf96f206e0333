"""The attempts of a job that were not its last one, as operators see them."""

from __future__ import annotations

from enum import StrEnum

from .log_lines import LOSSES
from .models import ErrorType, Failure, StoredResponse
from .outcomes import LossReason
from .struct import Struct

MAX_ATTEMPT_RECORDS = 100
"""Records of one job; the oldest are deleted. A job may be released without limit, if each attempt was long."""


class AttemptEnding(StrEnum):
    """How an attempt ended that was not the last one of its job."""

    RETRIED = "retried"
    """It failed, and was repeated."""
    TIMED_OUT = "timed_out"
    """It took longer than its time limit, and was repeated."""
    LOST = "lost"
    """Its process died or hung."""
    HANDED_BACK = "handed_back"
    """Its process stopped."""


class RepeatReason(Struct, frozen=True):
    """Why an attempt is repeated."""

    ending: AttemptEnding
    status: int | None = None
    """HTTP status of its response."""
    detail: str | None = None


HANDED_BACK = RepeatReason(AttemptEnding.HANDED_BACK)


def reason_of(outcome: StoredResponse | Failure | None) -> RepeatReason:
    """The reason of an attempt with this outcome that is repeated; None stands for an unknown outcome."""
    if outcome is None:
        return RepeatReason(AttemptEnding.RETRIED)
    if isinstance(outcome, StoredResponse):
        return RepeatReason(AttemptEnding.RETRIED, outcome.status)
    timed_out = outcome.error_type is ErrorType.REQUEST_TIMEOUT
    return RepeatReason(AttemptEnding.TIMED_OUT if timed_out else AttemptEnding.RETRIED, detail=outcome.detail)


def reason_of_loss(loss: LossReason) -> RepeatReason:
    """The reason of an attempt that lost its process."""
    return RepeatReason(AttemptEnding.LOST, detail=f"the attempt {LOSSES[loss]}")


class AttemptRecord(Struct, frozen=True):
    """One attempt that was not the last one."""

    number: int
    """1 for the first. Attempts that were not charged have the number of the next one."""
    started_at: int
    ended_at: int
    ending: AttemptEnding
    status: int | None
    """HTTP status of its response."""
    detail: str | None
    owner: str
    """The process that made it, as in `processes.ProcessRecord.owner`."""
