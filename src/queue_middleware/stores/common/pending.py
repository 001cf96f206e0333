"""An operation that waits for its transaction, and how its caller gets the result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from queue_middleware.errors import QueueError

from .transaction import Transaction

P = TypeVar("P")
R = TypeVar("R")

Operation = Callable[[Transaction, Sequence[P]], Sequence[R | QueueError]]
"""A function from a batch of payloads to one result per payload. A `QueueError` is raised to its caller and undoes nothing."""


class Pending(msgspec.Struct, gc=False, eq=False):
    """One operation of a group. Every job has two, so the garbage collector does not track it; `resolve` empties it."""

    operation: Operation[Any, Any]
    payload: Any
    size: int
    on_result: Callable[[Any], None] | None
    future: asyncio.Future[Any] | None
    """What its caller awaits; None if only `on_result` is called."""
    result: Any = None
    """Set before it is resolved: what the operation returned, or an error."""


def with_result(group: list[Pending], result: Any) -> list[Pending]:
    """The same operations, all with this result."""
    for pending in group:
        pending.result = result
    return group


def resolve(pending: Pending) -> None:
    """Pass the result on, even if `on_result` raises."""
    result, on_result, future = pending.result, pending.on_result, pending.future
    # An error leads back to this object by its traceback. The garbage collector would not see the cycle.
    pending.result = pending.on_result = pending.future = None
    try:
        if on_result is not None:
            on_result(result)
    finally:
        if future is not None:
            set_result(future, result)


def set_result(future: asyncio.Future[Any], result: Any) -> None:
    """Resolve a future with a result or a `QueueError`, even if its caller is gone."""
    if future.done():
        return
    if isinstance(result, QueueError):
        future.set_exception(result)
        future.exception()  # marks it as retrieved: asyncio must not warn when the caller is gone
    else:
        future.set_result(result)
