"""The two kinds of access that the ports have to a database: an operation in the next transaction, and a read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from queue_middleware.jobs.store import OnResult

from .pending import Operation, P, R
from .transaction import Queries


class Write(Protocol):
    """Puts an operation into the next transaction. The parameters are those of `writer.Writer.submit`."""

    def __call__(
        self,
        operation: Operation[P, R],
        payload: P,
        size: int = 0,
        on_result: OnResult[R] | None = None,
    ) -> Awaitable[R]:
        """The result of the operation, once it is committed."""


class Read(Protocol):
    """Runs a query on a reading connection."""

    def __call__(self, work: Callable[[Queries], R]) -> Awaitable[R]:
        """The result of `work`."""
