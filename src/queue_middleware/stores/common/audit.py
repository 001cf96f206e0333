"""What operators have done: recorded in the transaction that carries it out."""

from __future__ import annotations

from collections.abc import Sequence

from queue_middleware.jobs.audit import MAX_AUDIT_RECORDS, Action, AuditRecord

from .codec import clean
from .transaction import Queries, Transaction

Act = tuple[str, Action, str, int]
"""Operator, action, target, count."""

_NEWEST = 2**63 - 1
"""An id above all others."""


def record(transaction: Transaction, batch: Sequence[Act]) -> list[None]:
    """Record acts, and delete the oldest records above `MAX_AUDIT_RECORDS`."""
    for operator, action, target, count in batch:
        row = (transaction.now, clean(operator), action.value, clean(target), count)
        transaction.change("insert_audit_record", row)
    if batch:
        transaction.change("delete_old_audit_records", (MAX_AUDIT_RECORDS,))
    return [None] * len(batch)


def records(queries: Queries, before: int | None, limit: int) -> list[AuditRecord]:
    """The newest records with an id below `before`."""
    rows = queries.all("audit_records", (_NEWEST if before is None else before, limit))
    return [
        AuditRecord(number, at, operator, Action(action), target, count) for number, at, operator, action, target, count in rows
    ]
