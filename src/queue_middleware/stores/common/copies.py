"""The operation that submits copies of ended jobs, and what links a copy with its original."""

from __future__ import annotations

from collections.abc import Sequence

from queue_middleware.errors import NotEnded, QueueError, UnknownRequest
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.ids import format_request_id, parse_request_id
from queue_middleware.jobs.models import NewJob, SubmitResult
from queue_middleware.jobs.states import FINAL

from . import audit
from .submissions import Limits, submit
from .transaction import Queries, Transaction

Copy = tuple[str, NewJob, bytes]
"""Request id of the original, the job to submit, its encoded request without the body."""
Copies = tuple[Sequence[Copy], Limits, str, str]
"""Copies, limits for submissions, operator, target of the record."""
_MAX_LISTED = 100


def copy(transaction: Transaction, batch: Sequence[Copies]) -> list[list[str | QueueError]]:
    """Submit copies of ended jobs. An error takes the place of the id of a copy that was refused."""
    return [_copy(transaction, *item) for item in batch]


def _copy(
    transaction: Transaction, copies: Sequence[Copy], limits: Limits, operator: str, target: str
) -> list[str | QueueError]:
    originals = [_original(transaction, request_id) for request_id, _, _ in copies]
    accepted = [(new, head, False, limits) for (_, new, head), found in zip(copies, originals, strict=True) if _is_key(found)]
    submitted = iter(submit(transaction, accepted) if accepted else [])
    results = [found if isinstance(found, QueueError) else next(submitted) for found in originals]
    links = [
        (*_find(transaction, result.request_id), *found)
        for result, found in zip(results, originals, strict=True)
        if isinstance(result, SubmitResult) and not isinstance(found, QueueError)
    ]
    transaction.rows("insert_copies", [(key, original, tail) for key, _, original, tail in links])
    if links:
        audit.record(transaction, [(operator, Action.REPLAY, target, len(links))])
    return [result if isinstance(result, QueueError) else result.request_id for result in results]


def _is_key(found: tuple[int, bytes] | QueueError) -> bool:
    return not isinstance(found, QueueError)


def _original(transaction: Transaction, request_id: str) -> tuple[int, bytes] | QueueError:
    """Key and random part of a job that has ended."""
    first, tail = parse_request_id(request_id)
    row = transaction.one("find_job", {"first": first, "tail": tail})
    if row is None:
        return UnknownRequest(f"there is no request {request_id}")
    if row[1] not in FINAL:
        return NotEnded(f"the request {request_id} is {row[1]}; it can be submitted again when it has ended")
    return row[0], tail


def _find(transaction: Transaction, request_id: str) -> tuple[int, str]:
    """Key and state of a job that this transaction has stored."""
    first, tail = parse_request_id(request_id)
    row = transaction.one("find_job", {"first": first, "tail": tail})
    assert row is not None, "it was inserted in this transaction"  # noqa: S101
    return row[0], row[1]


def copies_of(queries: Queries, key: int, random_part: bytes) -> tuple[str, ...]:
    """The copies of a job that are still stored, the oldest first."""
    rows = queries.all("copies_of_job", {"key": key, "tail": random_part, "limit": _MAX_LISTED})
    return tuple(format_request_id(*row) for row in rows)
