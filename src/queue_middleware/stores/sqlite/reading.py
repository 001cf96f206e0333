"""What is asked of the database without changing it; each runs on the reading connection, and leaves no cursor open."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from queue_middleware.counts import Counts
from queue_middleware.ends import Outcome
from queue_middleware.errors import StillInProgress, UnknownRequest
from queue_middleware.lifecycle import FINAL
from queue_middleware.models import Glance, Job, JobState, Result, StoredResponse
from queue_middleware.request_id import parse_request_id
from queue_middleware.store import Topic
from queue_middleware.webhooks import DeliveryState, Standing

from .codec import decode_headers, decode_spec
from .jobrow import job_of, one
from .queries import SQL


def job(connection: sqlite3.Connection, request_id: str) -> Job:
    """One job as it stands."""
    first, tail = parse_request_id(request_id)
    row = one(connection, "job", {"first": first, "tail": tail})
    if row is None:
        raise UnknownRequest(f"there is no request {request_id}")
    return job_of(*row)


def glance(connection: sqlite3.Connection, keys: Sequence[int], positions: bool) -> list[Glance]:
    """Several jobs as they stand, those that there are."""
    rows = connection.execute(SQL["glance"], {"keys": json.dumps(keys), "positions": positions}).fetchall()
    return [Glance(job_of(*row[:-1]), row[-1] or 0) for row in rows]


def result(connection: sqlite3.Connection, request_id: str) -> Result:
    """A finished job with its answer, from one snapshot."""
    connection.execute("BEGIN")
    try:
        found = job(connection, request_id)
        row = one(connection, "response", (found.key,))
    finally:
        connection.execute("COMMIT")
    if found.state not in FINAL:
        raise StillInProgress("Request is still in progress")
    if row is None:
        return Result(found, None)
    *answer, resolved_by, spec = row
    external = resolved_by is not None or (spec is not None and decode_spec(spec).outside)
    return _result(found, tuple(answer), external)


def _result(found: Job, answer: tuple[Any, ...] | None, external: bool = False) -> Result:
    if answer is None or found.status is None:
        return Result(found, None)
    head, body, parts = answer
    return Result(found, StoredResponse(found.status, decode_headers(head), body, parts), external)


def results(connection: sqlite3.Connection, keys: Collection[int]) -> dict[int, Result]:
    """Finished jobs with their answers, by key; without those that are gone."""
    found: dict[int, Result] = {}
    for head, body, parts, *row in connection.execute(SQL["results"], (json.dumps(list(keys)),)).fetchall():
        finished = job_of(*row)
        if finished.state in FINAL:
            found[finished.key] = _result(finished, None if head is None else (head, body, parts))
    return found


def output(connection: sqlite3.Connection, key: int, number: int) -> bytes:
    """One part of an answer."""
    row = one(connection, "response_part", (key, number))
    if row is None:
        raise UnknownRequest("the result is no longer kept")
    return bytes(row[0])


def held(connection: sqlite3.Connection, owner: str) -> Mapping[tuple[int, int], bool]:
    """Key and token → whether it is to be cancelled."""
    rows = connection.execute(SQL["held"], (owner,)).fetchall()
    return {(key, token): bool(cancelling) for key, token, cancelling in rows}


def owners(connection: sqlite3.Connection) -> list[str]:
    """Everybody who runs or sends something."""
    return [row[0] for row in connection.execute(SQL["owners"]).fetchall()]


def leases_ran_out(connection: sqlite3.Connection, ended_by: int) -> bool:
    """Whether there is a lease that ended at this moment or before it."""
    row = one(connection, "leases_ran_out", {"ended_by": ended_by})
    return row is not None and bool(row[0])


def anything_overdue(connection: sqlite3.Connection, now: int) -> bool:
    """Whether a start deadline has passed."""
    return bool(connection.execute(SQL["overdue"], (now,)).fetchall())


_NEXT = {Topic.WORK: "next_work", Topic.DELIVERY: "next_delivery", Topic.POLL: "next_poll"}


def next_due(connection: sqlite3.Connection, topic: Topic) -> int | None:
    """When the next delayed job, pending delivery or poll is due, in milliseconds since 1970."""
    row = one(connection, _NEXT[topic], {"after": -1} if topic is Topic.DELIVERY else ())
    return None if row is None or row[0] is None else int(row[0])


def spare(connection: sqlite3.Connection) -> int:
    """Bytes of the file that are free: what is stored next is stored there, and takes no room on the disk."""
    (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(size)


def counts(connection: sqlite3.Connection) -> Counts:
    """How many are in each state, and how many ended how; from one snapshot."""
    connection.execute("BEGIN")
    try:
        jobs, outcomes, deliveries, receivers = (
            dict(connection.execute(SQL[name]).fetchall())
            for name in ("count_jobs", "count_outcomes", "count_all_deliveries", "count_receivers")
        )
    finally:
        connection.execute("COMMIT")
    ended = {Outcome(name): count for name, count in outcomes.items()}
    states = {JobState(state): count for state, count in jobs.items() if count}
    for outcome, count in ended.items():
        state = _WITHOUT_ANSWER.get(outcome, JobState.COMPLETED)
        states[state] = states.get(state, 0) + count
    return Counts(
        states,
        {DeliveryState(state): count for state, count in deliveries.items()},
        {Standing(standing): count for standing, count in receivers.items()},
        ended,
    )


_WITHOUT_ANSWER = {Outcome.FAILED: JobState.FAILED, Outcome.CANCELLED: JobState.CANCELLED}
