"""Reads of jobs, responses and counts, on a reading connection."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from queue_middleware.errors import QueueError, StillInProgress, UnknownRequest
from queue_middleware.jobs.counts import QueueCounts
from queue_middleware.jobs.ids import SEQUENCE_BITS
from queue_middleware.jobs.models import Job, JobResult, JobSnapshot, JobState, StoredResponse
from queue_middleware.jobs.outcomes import Outcome
from queue_middleware.jobs.states import FINAL
from queue_middleware.jobs.store import Topic
from queue_middleware.webhooks.models import DeliveryState, HostHealth

from .codec import decode_headers, decode_spec
from .job_row import job_of
from .transaction import Queries

Asked = tuple[str, int, bytes]
"""A request id, and the two parts of it that `parse_request_id` gives."""

_COLUMNS = 13
"""Of a job, in front of what is read beside it."""


def job(queries: Queries, batch: Sequence[Asked]) -> list[Job | QueueError]:
    """Jobs as they stand."""
    rows = zip(batch, _by_id(queries, "job", batch), strict=True)
    return [_unknown(asked) if row is None else job_of(*row) for asked, row in rows]


def _by_id(queries: Queries, name: str, batch: Sequence[Asked]) -> list[tuple[Any, ...] | None]:
    """Rows that begin with the key and the random part of a job."""
    rows = queries.rows(name, [asked[1:] for asked in batch])
    found = {(row[0] >> SEQUENCE_BITS << SEQUENCE_BITS, row[1]): row for row in rows}
    return [found.get((first, tail)) for _, first, tail in batch]


def _unknown(asked: Asked) -> UnknownRequest:
    return UnknownRequest(f"there is no request {asked[0]}")


def glance(queries: Queries, keys: Sequence[int], positions: bool) -> list[JobSnapshot]:
    """Several jobs as they stand, those that there are."""
    rows = queries.all("glance", {"keys": list(keys), "positions": positions})
    return [JobSnapshot(job_of(*row[:-1]), row[-1] or 0) for row in rows]


def result(queries: Queries, batch: Sequence[Asked]) -> list[JobResult | QueueError]:
    """Finished jobs with their responses."""
    rows = zip(batch, _by_id(queries, "result", batch), strict=True)
    return [_unknown(asked) if row is None else _ended(row) for asked, row in rows]


def _ended(row: tuple[Any, ...]) -> JobResult | QueueError:
    found = job_of(*row[:_COLUMNS])
    if found.state not in FINAL:
        return StillInProgress("Request is still in progress")
    head, body, chunks, resolved_by, spec = row[_COLUMNS:]
    if head is None:
        return JobResult(found, None)
    external = resolved_by is not None or (spec is not None and decode_spec(spec).is_external)
    return _result(found, (head, body, chunks), external)


def _result(found: Job, answer: tuple[Any, ...] | None, external: bool = False) -> JobResult:
    if answer is None or found.status is None:
        return JobResult(found, None)
    head, body, parts = answer
    return JobResult(found, StoredResponse(found.status, decode_headers(head), body, parts), external)


def results(queries: Queries, keys: Collection[int]) -> dict[int, JobResult]:
    """Finished jobs with their answers, by key; without those that are gone."""
    found: dict[int, JobResult] = {}
    for head, body, parts, *row in queries.all("results", (list(keys),)):
        finished = job_of(*row)
        if finished.state in FINAL:
            found[finished.key] = _result(finished, None if head is None else (head, body, parts))
    return found


def output(queries: Queries, key: int, number: int) -> bytes:
    """One part of an answer."""
    row = queries.one("response_part", (key, number))
    if row is None:
        raise UnknownRequest("the result is no longer kept")
    return bytes(row[0])


def held(queries: Queries, owner: str) -> Mapping[tuple[int, int], bool]:
    """Key and token → whether it is to be cancelled."""
    rows = queries.all("held", (owner,))
    return {(key, token): bool(cancelling) for key, token, cancelling in rows}


def owners(queries: Queries) -> list[str]:
    """All owners that hold a running job, a delivery or a poll."""
    return [row[0] for row in queries.all("owners")]


def leases_ran_out(queries: Queries, ended_by: int) -> bool:
    """Whether there is a lease that ended at this moment or before it."""
    row = queries.one("leases_ran_out", {"ended_by": ended_by})
    return row is not None and bool(row[0])


def anything_overdue(queries: Queries, now: int) -> bool:
    """Whether a start deadline has passed."""
    return bool(queries.all("overdue", (now,)))


_NEXT = {Topic.WORK: "next_work", Topic.DELIVERY: "next_delivery", Topic.POLL: "next_poll"}


def next_due(queries: Queries, topic: Topic) -> int | None:
    """When the next delayed job, pending delivery or poll is due, in milliseconds since 1970."""
    row = queries.one(_NEXT[topic], {"after": -1} if topic is Topic.DELIVERY else ())
    return None if row is None or row[0] is None else int(row[0])


def counts(queries: Queries) -> QueueCounts:
    """How many are in each state, and how many ended how; from one snapshot."""
    with queries.snapshot():
        jobs, outcomes, deliveries, receivers = (
            dict(queries.all(name)) for name in ("count_jobs", "count_outcomes", "count_all_deliveries", "count_receivers")
        )
    ended = {Outcome(name): count for name, count in outcomes.items()}
    states = {JobState(state): count for state, count in jobs.items() if count}
    for outcome, count in ended.items():
        state = _WITHOUT_ANSWER.get(outcome, JobState.COMPLETED)
        states[state] = states.get(state, 0) + count
    return QueueCounts(
        states,
        {DeliveryState(state): count for state, count in deliveries.items()},
        {HostHealth(standing): count for standing, count in receivers.items()},
        ended,
    )


_WITHOUT_ANSWER = {Outcome.FAILED: JobState.FAILED, Outcome.CANCELLED: JobState.CANCELLED}
