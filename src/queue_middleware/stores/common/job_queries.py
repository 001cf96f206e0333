"""Reads jobs, responses and counts on a reading connection."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from queue_middleware.errors import QueueError, StillInProgress, UnknownRequest
from queue_middleware.jobs.counts import QueueCounts
from queue_middleware.jobs.ids import SEQUENCE_BITS
from queue_middleware.jobs.models import CHUNK_SIZE, Job, JobResult, JobSnapshot, JobState, StoredResponse
from queue_middleware.jobs.outcomes import Outcome
from queue_middleware.jobs.states import FINAL
from queue_middleware.jobs.store import Topic
from queue_middleware.webhooks.models import DeliveryState, ReceiverHealth

from . import pauses
from .codec import decode_headers, decode_spec
from .job_row import job_of
from .transaction import Queries

RequestId = tuple[str, int, bytes]
"""A request id and its two parts, as `parse_request_id` returns them."""

_COLUMNS = 13
"""The number of columns of a job; further columns follow them."""


def job(queries: Queries, batch: Sequence[RequestId]) -> list[Job | QueueError]:
    """The present state of jobs."""
    rows = zip(batch, _by_id(queries, "job", batch), strict=True)
    return [_unknown(request_id) if row is None else job_of(*row) for request_id, row in rows]


def _by_id(queries: Queries, name: str, batch: Sequence[RequestId]) -> list[tuple[Any, ...] | None]:
    """Run a query whose rows begin with the key and the random part of a job; its row for each item, None if there is none."""
    rows = queries.rows(name, [request_id[1:] for request_id in batch])
    found = {(row[0] >> SEQUENCE_BITS << SEQUENCE_BITS, row[1]): row for row in rows}
    return [found.get((first, tail)) for _, first, tail in batch]


def _unknown(request_id: RequestId) -> UnknownRequest:
    return UnknownRequest(f"there is no request {request_id[0]}")


def snapshots(queries: Queries, keys: Sequence[int], positions: bool) -> list[JobSnapshot]:
    """The present state of several jobs. Deleted jobs are left out."""
    rows = queries.all("snapshots", {"keys": list(keys), "positions": positions})
    return [JobSnapshot(job_of(*row[:-1]), row[-1] or 0) for row in rows]


def changed(queries: Queries, keys: Sequence[int], state: JobState, attempt: int) -> list[int]:
    """Those of the keys whose jobs are not in this state and attempt; deleted jobs included."""
    parameters = {"keys": list(keys), "state": state.value, "attempt": attempt}
    return [row[0] for row in queries.all("changed", parameters)]


def result(queries: Queries, batch: Sequence[RequestId]) -> list[JobResult | QueueError]:
    """Ended jobs with their responses."""
    rows = zip(batch, _by_id(queries, "result", batch), strict=True)
    return [_unknown(request_id) if row is None else _ended(row) for request_id, row in rows]


def _ended(row: tuple[Any, ...]) -> JobResult | QueueError:
    found = job_of(*row[:_COLUMNS])
    if found.state not in FINAL:
        return StillInProgress("Request is still in progress")
    head, body, chunks, resolved_by, spec = row[_COLUMNS:]
    if head is None:
        return JobResult(found, None)
    external = resolved_by is not None or (spec is not None and decode_spec(spec).is_external)
    return _result(found, (head, body, chunks), external)


def _result(found: Job, response: tuple[Any, ...] | None, external: bool = False) -> JobResult:
    if response is None or found.status is None:
        return JobResult(found, None)
    head, body, chunks = response
    return JobResult(found, StoredResponse(found.status, decode_headers(head), body, chunks), external)


def results(queries: Queries, keys: Collection[int]) -> dict[int, JobResult]:
    """Ended jobs with their responses, by key. Deleted jobs are left out."""
    found: dict[int, JobResult] = {}
    for head, body, chunks, *row in queries.all("results", (list(keys),)):
        ended = job_of(*row)
        if ended.state in FINAL:
            found[ended.key] = _result(ended, None if head is None else (head, body, chunks))
    return found


def response_chunk(queries: Queries, key: int, number: int) -> bytes:
    """One chunk of a response."""
    row = queries.one("response_chunk", (key, number))
    if row is None:
        raise UnknownRequest("the result is no longer kept")
    return bytes(row[0])


def running_claims(queries: Queries, owner: str) -> Mapping[tuple[int, int], bool]:
    """The running jobs of one process: key and token → whether the job is to be cancelled."""
    rows = queries.all("running_claims", (owner,))
    return {(key, token): bool(cancelling) for key, token, cancelling in rows}


def owners(queries: Queries) -> list[str]:
    """All processes that hold a running job, a delivery or a poll."""
    return [row[0] for row in queries.all("owners")]


def has_expired_leases(queries: Queries, ended_by: int) -> bool:
    """Whether a lease ended at this time or before."""
    row = queries.one("has_expired_leases", {"ended_by": ended_by})
    return row is not None and bool(row[0])


def has_overdue_jobs(queries: Queries, now: int) -> bool:
    """Whether the start deadline of a job has passed."""
    return bool(queries.all("overdue_jobs", {"now": now, "chunk": CHUNK_SIZE}))


def next_due(queries: Queries, topic: Topic, now: int) -> int | None:
    """When the next delayed job, pending delivery or poll is due, or a pause ends, in milliseconds since 1970."""
    if topic is Topic.WORK:
        return pauses.next_start(queries, now)
    row = queries.one("next_delivery", {"after": -1}) if topic is Topic.DELIVERY else queries.one("next_poll")
    return None if row is None or row[0] is None else int(row[0])


def counts(queries: Queries) -> QueueCounts:
    """How many jobs, deliveries and receivers are in each state, and how the jobs ended, read from one snapshot."""
    with queries.snapshot():
        jobs, outcomes, deliveries, receivers = (
            dict(queries.all(name)) for name in ("count_jobs", "count_outcomes", "count_deliveries", "count_receivers")
        )
    ended = {Outcome(name): count for name, count in outcomes.items()}
    states = {JobState(state): count for state, count in jobs.items() if count}
    for outcome, count in ended.items():
        state = _STATE_WITHOUT_RESPONSE.get(outcome, JobState.COMPLETED)
        states[state] = states.get(state, 0) + count
    return QueueCounts(
        states,
        {DeliveryState(state): count for state, count in deliveries.items()},
        {ReceiverHealth(health): count for health, count in receivers.items()},
        ended,
    )


_STATE_WITHOUT_RESPONSE = {Outcome.FAILED: JobState.FAILED, Outcome.CANCELLED: JobState.CANCELLED}
