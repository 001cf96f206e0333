"""Ends an attempt before its response: disconnect, then cancellation, then settlement without waiting for its code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from queue_middleware.jobs.models import ErrorType, Failure
from queue_middleware.jobs.outcomes import CANCELLED

DISCONNECT_GRACE = 0.1
"""Seconds between `http.disconnect` and the cancellation of the task: time to end by itself."""
CANCEL_GRACE = 5.0
"""Seconds for `finally` blocks after the cancellation; then the job is settled, though its slot stays occupied."""


class AbortReason(StrEnum):
    """Why an attempt is ended before its response."""

    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"
    LOST = "lost"


def failure_of(reason: AbortReason | None, limit: float) -> Failure | None:
    """The failure that an aborted job ends with; None if it goes on in another attempt. `limit` in seconds."""
    if reason is AbortReason.CANCELLED:
        return CANCELLED
    if reason is AbortReason.TIMEOUT:
        return Failure(ErrorType.REQUEST_TIMEOUT, f"the attempt took longer than {limit:g} s")
    return None


class Abortable(Protocol):
    """A running attempt."""

    def disconnect(self) -> None:
        """Send `http.disconnect` to the application."""

    def cancel_call(self) -> bool:
        """Cancel the call; False if it cannot be cancelled, and so need not be waited for."""

    def settle_unended(self) -> None:
        """Settle the job although its code has not ended. Does nothing when it is settled."""


WeakAttempt = Callable[[], Abortable | None]
"""A weak reference to an attempt."""


def end_early(attempt: WeakAttempt, loop: asyncio.AbstractEventLoop) -> None:
    """Begin to end the attempt. The timers refer to it weakly and are never cancelled: a step after its end does nothing."""
    if (running := attempt()) is not None:
        running.disconnect()
        loop.call_later(DISCONNECT_GRACE, _cancel, attempt, loop)


def _cancel(attempt: WeakAttempt, loop: asyncio.AbstractEventLoop) -> None:
    if (running := attempt()) is None:
        return
    if running.cancel_call():
        loop.call_later(CANCEL_GRACE, _settle, attempt)
    else:
        running.settle_unended()


def _settle(attempt: WeakAttempt) -> None:
    if (running := attempt()) is not None:
        running.settle_unended()
