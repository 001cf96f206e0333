"""Operations of operators on many jobs: cancel them, and make delayed ones due. Each checks the states itself."""

from __future__ import annotations

from collections.abc import Sequence

from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.models import CHUNK_SIZE, JobState
from queue_middleware.jobs.outcomes import CANCELLED
from queue_middleware.jobs.store import Topic
from queue_middleware.jobs.struct import Struct

from . import audit, task_rows
from .bounds import within_bounds
from .jobs import end_not_running
from .transaction import Transaction

BATCH = 500
"""Jobs of one transaction."""
Selected = tuple[Sequence[int], str, str]
"""Keys of jobs, operator, target of the record."""


class Cancelled(Struct, frozen=True):
    """What one transaction has done of a cancellation."""

    states: dict[int, JobState]
    """The new states of those that it affected."""
    left: Sequence[int]
    """The jobs that it left for another transaction, because many rows of long requests have to be deleted."""


def cancel(transaction: Transaction, batch: Sequence[Selected]) -> list[Cancelled]:
    """Cancel jobs that are not running; request the cancellation of running ones."""
    return [_cancel(transaction, *item) for item in batch]


def _cancel(transaction: Transaction, keys: Sequence[int], operator: str, target: str) -> Cancelled:
    open_jobs = transaction.all("cancellable_jobs", {"keys": list(keys), "chunk": CHUNK_SIZE})
    states = {key: JobState(state) for key, state in within_bounds(open_jobs)}
    running = [key for key, state in states.items() if state is JobState.RUNNING]
    if running:
        transaction.change("request_cancellations", (running,))
        transaction.topics.add(Topic.CANCEL)
    ended = [key for key in states if key not in running]
    if ended:
        end_not_running(transaction, ended, CANCELLED)
        for key in ended:
            if states[key] is JobState.AWAITING:
                task_rows.end_wait(transaction, key)
    if states:
        audit.record(transaction, [(operator, Action.CANCEL, target, len(states))])
    left = [key for key, *_ in open_jobs if key not in states]
    return Cancelled({key: JobState.RUNNING if key in running else JobState.CANCELLED for key in states}, left)


def run_now(transaction: Transaction, batch: Sequence[Selected]) -> list[list[int]]:
    """Make delayed jobs due now. Returns the keys of those that were delayed."""
    return [_run_now(transaction, *item) for item in batch]


def _run_now(transaction: Transaction, keys: Sequence[int], operator: str, target: str) -> list[int]:
    due = [row[0] for row in transaction.all("make_jobs_due", {"now": transaction.now, "keys": list(keys)})]
    if due:
        audit.record(transaction, [(operator, Action.RUN_NOW, target, len(due))])
        transaction.topics.add(Topic.WORK)
    return due
