"""Begins an attempt only after the response to the submission that it was claimed with has been sent.

A handler may block the event loop, or end the process, in its first step. By then the responses to its submission, and to all
others of the same commit, are on their way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context
from types import TracebackType
from typing import Protocol

from queue_middleware.errors import QueueError
from queue_middleware.jobs.models import Claim, SubmitResult

START_DELAY_TURNS = 4
"""Turns of the event loop between the end of `send` and the first step of an attempt.

One is enough for a server's own `send`: uvloop writes at the end of a turn, and all responses of one commit are sent in the
same turn. The others are for middlewares that pass messages on to another task, such as Starlette's `BaseHTTPMiddleware`.
"""
MAX_HOLD = 1.0
"""Seconds for which a slot is kept for an attempt whose client does not read its response."""


class Startable(Protocol):
    """An attempt that has a slot and has not begun."""

    @property
    def since(self) -> float:
        """When it was claimed, by the event loop's clock."""

    def begin(self, variables: Context) -> None:
        """Start its task."""


class StartQueue:
    """Begins attempts in the order in which they are allowed to begin, all of a turn in one callback."""

    def __init__(self, loop: asyncio.AbstractEventLoop, variables: Context) -> None:
        self.variables = variables
        """The context variables of the application; each attempt gets a copy."""
        self._loop = loop
        # Not the context of a submission, which a callback would keep alive.
        self._own_context = variables
        self._held: dict[Startable, None] = {}
        self._due: deque[list[Startable]] = deque([] for _ in range(START_DELAY_TURNS))
        """The attempts that begin in each of the next turns."""
        self._waiting = 0
        """How many they are."""

    def hold(self, attempt: Startable) -> None:
        """Keep the attempt until the response to its submission is sent."""
        self._held[attempt] = None

    def let_begin(self, attempt: Startable) -> None:
        """Let the attempt begin: the response to its submission is sent, or there will be none. Idempotent."""
        if attempt in self._held:
            del self._held[attempt]
            self.enqueue(attempt)

    def let_overdue_begin(self, now: float) -> None:
        """Called periodically: let attempts begin whose clients do not read their responses."""
        while self._held and now - (attempt := next(iter(self._held))).since >= MAX_HOLD:
            self.let_begin(attempt)

    def enqueue(self, attempt: Startable) -> None:
        """Begin the attempt in `START_DELAY_TURNS` turns of the event loop."""
        self._due[-1].append(attempt)
        if not self._waiting:
            self._loop.call_soon(self._next_turn, context=self._own_context)
        self._waiting += 1

    def _next_turn(self) -> None:
        due = self._due.popleft()
        self._due.append([])
        self._waiting -= len(due)
        if self._waiting:
            self._loop.call_soon(self._next_turn, context=self._own_context)
        for attempt in due:
            attempt.begin(self.variables.copy())


class Starter(Protocol):
    """Runs the claims of submissions. Implemented by `worker.Worker`."""

    def hold(self, claim: Claim | None) -> Startable | None:
        """Occupy the reserved slot with the claim, whose attempt does not begin yet; without a claim, free the slot."""

    def let_begin(self, attempt: Startable) -> None:
        """Let the attempt begin. Idempotent."""


class Submission:
    """A job being submitted. Use it as a context manager, which returns its `SubmitResult`, and send the response inside.

    If an attempt was claimed with the job, it may begin on exit. Without an exit, it begins after `MAX_HOLD` seconds.
    """

    __slots__ = ("_attempt", "_is_closed", "_starter", "result")

    result: SubmitResult
    """Set when it is stored."""

    def __init__(self, starter: Starter) -> None:
        self._starter = starter
        self._attempt: Startable | None = None
        self._is_closed = False

    def on_result(self, result: SubmitResult | QueueError) -> None:
        """Called when it is committed, or has failed, also after `close`: what was claimed has to be run."""
        attempt = self._attempt = self._starter.hold(None if isinstance(result, QueueError) else result.claim)
        if self._is_closed and attempt is not None:
            self._starter.let_begin(attempt)

    def close(self) -> None:
        """The response is on its way, or there will be none. Idempotent."""
        self._is_closed = True
        if self._attempt is not None:
            self._starter.let_begin(self._attempt)

    def __enter__(self) -> SubmitResult:
        return self.result

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
