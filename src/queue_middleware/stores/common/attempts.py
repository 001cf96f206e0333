"""Records the attempts that were not the last one of their job. The last attempt is in the row of the job."""

from __future__ import annotations

from queue_middleware.jobs.attempts import MAX_ATTEMPT_RECORDS, AttemptEnding, AttemptRecord, RepeatReason
from queue_middleware.jobs.struct import Struct

from .codec import clean
from .transaction import Queries, Transaction


class EndedAttempt(Struct, frozen=True):
    """An attempt that ends in this transaction, and is to be repeated."""

    key: int
    number: int
    started_at: int
    owner: str


def record(transaction: Transaction, attempt: EndedAttempt, reason: RepeatReason) -> None:
    """Record an attempt that is repeated. Of many attempts of one job, the newest are kept."""
    transaction.change(
        "insert_attempt",
        {
            "key": attempt.key,
            "number": attempt.number,
            "started_at": attempt.started_at,
            "ended_at": max(transaction.now, attempt.started_at),  # the clock may have been set back
            "ending": reason.ending,
            "status": reason.status,
            "detail": None if reason.detail is None else clean(reason.detail),
            "owner": attempt.owner,
        },
    )
    transaction.change("delete_oldest_attempts", {"key": attempt.key, "most": MAX_ATTEMPT_RECORDS})


def attempts(queries: Queries, key: int) -> list[AttemptRecord]:
    """The attempts of a job that were not its last one, in order of time."""
    return [
        AttemptRecord(number, started_at, ended_at, AttemptEnding(ending), status, detail, owner)
        for number, started_at, ended_at, ending, status, detail, owner in queries.all("attempts", (key,))
    ]
