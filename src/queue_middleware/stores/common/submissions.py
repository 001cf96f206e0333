"""The operation that stores new jobs: it checks the limits, and claims a job at once if no other is queued."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Self

import msgspec

from queue_middleware.errors import QueueError, QueueFull, TooManyQueued
from queue_middleware.jobs.ids import RANDOM_BYTES, SEQUENCE_BITS, format_request_id, make_random_parts
from queue_middleware.jobs.models import CHUNK_SIZE, Claim, JobState, NewJob, Priority, SubmitResult
from queue_middleware.jobs.store import Topic
from queue_middleware.settings import Settings

from .codec import encode_webhook_kinds, split_body
from .idempotency import BatchKeys, Duplicate, read_existing
from .jobs import promote
from .pauses import is_held
from .task_rows import insert_submitted_task, is_scheduled
from .transaction import QueueCounters, Transaction
from .wall_clock import CLOCK_TOLERANCE
from .webhook_events import add_started

_NORMAL = int(Priority.NORMAL)
_RUNNING, _QUEUED = JobState.RUNNING.value, JobState.QUEUED.value


class Limits(msgspec.Struct, frozen=True):
    """The limits of this process for new jobs, and its options `on_crash` and `idempotency_retry_failed`."""

    queued: int
    per_client: int
    tasks: int
    tasks_per_client: int
    fails_on_crash: bool = False
    retries_failed_keys: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that the options set."""
        return cls(
            settings.max_queued,
            settings.max_queued_per_client,
            settings.max_tasks,
            settings.max_tasks_per_client,
            settings.on_crash == "fail",
            settings.idempotency_retry_failed,
        )


Submissions = Sequence[tuple[NewJob, bytes, bool, Limits]]
"""Job, encoded request without its body, whether the job may start at once, limits."""


class _Rows:
    """The rows of a batch, which are inserted at its end."""

    __slots__ = ("chunks", "duplicates", "jobs", "keys", "payloads", "special", "started")

    def __init__(self, batch: Submissions) -> None:
        self.started: list[tuple[Any, ...]] = []
        self.jobs: list[tuple[Any, ...]] = []
        self.payloads: list[tuple[int, bytes, bytes, int]] = []
        self.chunks: list[tuple[int, int, bytes]] = []
        self.special: list[tuple[int, NewJob, Claim | None]] = []
        self.keys = BatchKeys(batch)
        self.duplicates = 0
        """Submissions that repeat an earlier one, and have no rows."""


def submit(transaction: Transaction, batch: Submissions) -> list[SubmitResult | QueueError]:
    """Store new jobs. A job that may start at once is claimed if no other job is queued and its route is not paused."""
    promote(transaction)
    counters, key, id_of = transaction.counters, _next_key(transaction), transaction.routes.id_of
    random = os.urandom((RANDOM_BYTES + 8) * len(batch))
    tails, tokens = make_random_parts(random[8 * len(batch) :]), array("Q", random[: 8 * len(batch)])
    own_limits = batch[0][3]
    all_start = _all_start(counters, own_limits)
    results: list[Any] = []
    rows = _Rows(batch)
    append_job, append_payload = rows.started.append, rows.payloads.append
    for number, (new, head, start, limits) in enumerate(batch):
        tail, token = tails[RANDOM_BYTES * number : RANDOM_BYTES * (number + 1)], tokens[number] >> 1
        if start and all_start and limits is own_limits and _is_plain(new):
            request, retry, client, webhook, route = new.request, new.retry, new.client, new.webhook, new.route
            public_id = format_request_id(key, tail)
            route_id = id_of(transaction, request.method, route)
            append_job((key, tail, client, retry.max_attempts, webhook or "", token, route_id))
            append_payload((key, head, request.body, 0))
            claim = Claim(key, public_id, token, 1, retry, request, webhook, (), None, route, client)
            result: _Result = SubmitResult(public_id, 0, claim)
        else:
            result = _submit_unusual(transaction, (key, tail, token), rows, (batch, results))
            all_start = _all_start(counters, own_limits)
        results.append(result)
        if isinstance(result, SubmitResult):
            key += 1
    counters.last_key = key - 1
    _insert(transaction, rows, own_limits)
    return read_existing(transaction, results) if rows.duplicates else results


def _all_start(counters: QueueCounters, limits: Limits) -> bool:
    """Whether all plain jobs that may start at once do: no route is paused, no job queued, no limit reached."""
    waiting = counters.waiting
    return (
        not counters.pauses
        and waiting == counters.delayed
        and waiting < limits.queued
        and waiting < limits.per_client
        and counters.tasks < limits.tasks_per_client
    )


def _is_plain(new: NewJob) -> bool:
    """Whether `insert_started_jobs` and one row for the request are enough for a job that starts at once."""
    return (
        new.priority == _NORMAL
        and new.task is None
        and new.due_at is None
        and new.start_timeout is None
        and new.max_queue_length is None
        and not new.unstored_response
        and not new.webhook_kinds
        and not new.retry.extra
        and new.idempotency_key is None
        and len(new.request.body) <= CHUNK_SIZE
    )


def _submit_unusual(transaction: Transaction, identity: tuple[int, bytearray, int], rows: _Rows, group: _Group) -> _Result:
    """Check the limits for the next job of the group, and make all rows that it needs. `identity`: key, random part, token."""
    batch, results = group
    new, head, start, limits = batch[len(results)]
    idempotency_key = new.idempotency_key
    if idempotency_key is not None:
        found = rows.keys.find(transaction, idempotency_key, retry_failed=limits.retries_failed_keys)
        if found is not None:
            rows.duplicates += isinstance(found, Duplicate)
            return found
    if refusal := _refusal(transaction, new, limits, group):
        return refusal
    key, tail, token = identity
    counters = transaction.counters
    starts = (
        start
        and not counters.queued.total()
        and new.due_at is None
        and not (counters.pauses and is_held(transaction, new.request.method, new.route))
    )
    if idempotency_key is not None:
        rows.keys.add(idempotency_key, key)
    rows.jobs.append(_job_row(transaction, key, tail, token if starts else None, new, limits.fails_on_crash))
    first, *rest = split_body(new.request.body)
    rows.payloads.append((key, head, first, len(rest)))
    rows.chunks.extend((key, n, data) for n, data in enumerate(rest))
    if new.task is not None:
        counters.begin_task(new.client)
    public_id = format_request_id(key, tail)
    claim = None
    if starts:
        owned = new.webhook, new.webhook_kinds, new.task, new.route, new.client
        claim = Claim(key, public_id, token, 1, new.retry, new.request, *owned)
    if new.webhook_kinds or new.unstored_response or new.task is not None:
        rows.special.append((key, new, claim))
    return SubmitResult(public_id, 0 if starts else _enqueue(transaction, new), claim)


def _insert(transaction: Transaction, rows: _Rows, limits: Limits) -> None:
    if rows.started:
        common = (_NORMAL, transaction.owner, transaction.lease_until, transaction.now, int(limits.fails_on_crash))
        transaction.rows("insert_started_jobs", rows.started, common)
    transaction.rows("insert_jobs", rows.jobs)
    transaction.rows("insert_request_chunks", rows.chunks)
    transaction.payloads += rows.payloads
    rows.keys.insert(transaction)
    if rows.special:
        _insert_rare_rows(transaction, rows.special)


def _next_key(transaction: Transaction) -> int:
    """A key larger than those of all earlier jobs, so that the order stays right when the clock is set back a little.

    Keys further ahead than `CLOCK_TOLERANCE` were made while the clock was wrong. New keys follow them only while one of their
    jobs is queued or delayed, because a later job must not overtake it. Otherwise all keys would contain the wrong time.
    """
    counters, now = transaction.counters, transaction.now
    if counters.last_key >= now + CLOCK_TOLERANCE << SEQUENCE_BITS:
        row = transaction.one("last_key_to_follow", (now + CLOCK_TOLERANCE << SEQUENCE_BITS,))
        counters.last_key = row[0] if row else 0
    return max(counters.last_key + 1, now << SEQUENCE_BITS)


def _insert_rare_rows(transaction: Transaction, special: Sequence[tuple[int, NewJob, Claim | None]]) -> None:
    """Insert the rows of tables that only few jobs need."""
    kinds = [(key, encode_webhook_kinds(new.webhook_kinds)) for key, new, _ in special if new.webhook_kinds]
    transaction.rows("insert_webhook_events", kinds)
    unstored = [(key,) for key, new, _ in special if new.unstored_response]
    transaction.rows("insert_unstored_responses", unstored)
    for key, new, _ in special:
        if new.task is not None:
            insert_submitted_task(transaction, key, new)
    for _, _, claim in special:
        if claim is not None:
            add_started(transaction, claim)


def _enqueue(transaction: Transaction, new: NewJob) -> int:
    """Count a new job as queued or scheduled. Returns its position: the number of queued jobs before it."""
    counters = transaction.counters
    position = sum(count for priority, count in counters.queued.items() if priority <= new.priority)
    if is_scheduled(transaction, new):
        counters.scheduled += 1
    else:
        counters.enter(new.priority, new.client)
    transaction.topics.add(Topic.WORK)
    return position


def _refusal(transaction: Transaction, new: NewJob, limits: Limits, group: _Group) -> QueueError | None:
    if is_scheduled(transaction, new):
        return _task_refusal(transaction, new, limits, group)
    counters = transaction.counters
    waiting = counters.waiting
    if new.max_queue_length is not None and waiting > new.max_queue_length:
        return TooManyQueued(f"{waiting} requests are waiting, more than fal_max_queue_length={new.max_queue_length}", 5)
    if waiting >= limits.queued:
        return QueueFull(f"the queue is full: {waiting} requests are waiting", 10)
    if waiting >= limits.per_client:  # no client has more jobs than all clients together
        count = transaction.waiting_of_client(
            new.client,
            lambda: _count_accepted(group, new.client, lambda job, claim: not (claim or is_scheduled(transaction, job))),
        )
        if count >= limits.per_client:
            return TooManyQueued(f"you have {count} requests waiting, the most for one client", 10)
    if new.task is None and counters.tasks < limits.tasks_per_client:
        return None
    return _task_refusal(transaction, new, limits, group)


def _task_refusal(transaction: Transaction, new: NewJob, limits: Limits, group: _Group) -> QueueError | None:
    """Check the limits for tasks, which need neither a slot nor a position in the queue while they wait.

    A client at its limit cannot submit plain requests either, because their handlers may make them tasks.
    """
    counters = transaction.counters
    if new.task is not None and counters.tasks >= limits.tasks:
        return QueueFull(f"{counters.tasks} tasks have not ended, the most for this service (max_tasks)", 60)
    if counters.tasks >= limits.tasks_per_client:
        count = transaction.tasks_of_client(
            new.client, lambda: _count_accepted(group, new.client, lambda job, _: job.task is not None)
        )
        if count >= limits.tasks_per_client:
            return TooManyQueued(
                f"you have {count} tasks that have not ended, the most for one client (max_tasks_per_client)", 60
            )
    return None


_Result = SubmitResult | QueueError | Duplicate
_Group = tuple[Submissions, Sequence[_Result]]
"""The submissions of a batch, and the results of those that were already checked."""


def _count_accepted(group: _Group, client: str, is_counted: Callable[[NewJob, Claim | None], bool]) -> int:
    """How many submissions of a client this batch has accepted; their rows are not written yet."""
    return sum(
        isinstance(result, SubmitResult) and entry[0].client == client and is_counted(entry[0], result.claim)
        for entry, result in zip(*group, strict=False)
    )


def _job_row(
    transaction: Transaction, key: int, tail: bytearray, token: int | None, new: NewJob, fails_on_crash: bool
) -> tuple[Any, ...]:
    now = transaction.now
    starts = token is not None
    return (
        key,
        tail,
        _RUNNING if starts else _QUEUED,
        int(new.priority),
        new.client,
        1 if starts else 0,
        new.retry.max_attempts,
        json.dumps(new.retry.extra) if new.retry.extra else None,
        new.webhook,
        None if new.start_timeout is None else now + round(new.start_timeout * 1000),
        transaction.owner if starts else None,
        token,
        transaction.lease_until if starts else None,
        now if starts else None,
        int(fails_on_crash),
        transaction.routes.id_of(transaction, new.request.method, new.route),
    )
