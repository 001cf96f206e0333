"""Operations and reads on pauses. `jobs.pauses.paused_routes` decides which routes are paused."""

from __future__ import annotations

from collections.abc import Sequence

from queue_middleware.jobs.audit import QUEUE, Action
from queue_middleware.jobs.pauses import ALL_ROUTES, Pause, next_end, paused_routes
from queue_middleware.jobs.store import Topic

from . import audit
from .codec import clean
from .transaction import Queries, Transaction

_NONE: frozenset[str] = frozenset()


def held_routes(transaction: Transaction) -> frozenset[str]:
    """The routes whose jobs do not start in this transaction, after `Transaction.refresh`."""
    pauses = transaction.counters.pauses
    return paused_routes(pauses, transaction.now) if pauses else _NONE


def is_held(transaction: Transaction, method: str, template: str) -> bool:
    """Whether a new job of this route does not start now."""
    held = held_routes(transaction)
    if not held or ALL_ROUTES in held:
        return bool(held)
    # By the stored route, as in a claim: it is `OTHER` if too many routes are stored.
    return transaction.routes.template(transaction, transaction.routes.id_of(transaction, method, template)) in held


def next_start(queries: Queries, now: int) -> int | None:
    """When the next delayed job is due, or a pause ends by itself; None if neither is to come."""
    row = queries.one("next_delayed_job")
    due: int | None = row[0] if row else None
    if not (row and row[1]):
        return due
    pauses = read(queries)
    row = queries.one("next_unpaused_delayed_job", {"paused": sorted(paused_routes(pauses, now))})
    times = (row[0] if row else None, next_end(pauses, now))
    return min((time for time in times if time is not None), default=None)


def read(queries: Queries) -> list[Pause]:
    """All stored pauses, by route, also those that have just ended by themselves."""
    return [Pause(*row) for row in queries.all("pauses")]


def pause(transaction: Transaction, batch: Sequence[Pause]) -> list[None]:
    """Hold the starts of routes. Replaces earlier pauses of the same routes."""
    for one in batch:
        row = {
            "route": one.route,
            "operator": clean(one.operator),
            "reason": clean(one.reason),
            "paused_at": one.paused_at,
            "paused_until": one.paused_until,
        }
        transaction.change("put_pause", row)
    audit.record(transaction, [(one.operator, Action.PAUSE, one.route, 1) for one in batch])
    _changed(transaction)
    return [None] * len(batch)


def resume(transaction: Transaction, batch: Sequence[tuple[str, str]]) -> list[bool]:
    """End pauses; each item is a route and an operator. False for a route that is not paused."""
    return [_resume(transaction, route, operator) for route, operator in batch]


def _resume(transaction: Transaction, route: str, operator: str) -> bool:
    if not transaction.change("delete_pause", (route,)):
        return False
    audit.record(transaction, [(operator, Action.RESUME, route, 1)])
    _changed(transaction)
    return True


def end_overdue(transaction: Transaction, batch: Sequence[None]) -> list[list[Pause]]:
    """Delete the pauses that have ended by themselves, and return them."""
    transaction.refresh()
    held = held_routes(transaction)
    ended = [one for one in transaction.counters.pauses if one.route not in held]
    for one in ended:
        _resume(transaction, one.route, QUEUE)
    return [ended for _ in batch]


def _changed(transaction: Transaction) -> None:
    transaction.counters.invalidate()
    transaction.topics.add(Topic.WORK)
