"""Recognises calls that cannot be cancelled now, or never.

A thread cannot be killed: cancelling who waits for it would only make its slot look free. And a2wsgi's threads hand their
output to a coroutine of the call. When that is cancelled, a thread waits for it for ever; three cancelled streams with three
workers, and the application is dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import FrameType
from typing import Any

from .replay import MARK

_BRIDGES = ("a2wsgi.",)
_THREADS = frozenset({"anyio.to_thread", "asyncio.threads", "asgiref.sync"})


def in_thread(task: asyncio.Task[None]) -> bool:
    """Whether what this task waits for now is done in a thread, which goes on whatever becomes of the task."""
    return any(frame.f_globals.get("__name__") in _THREADS for frame in _frames(task.get_coro()))


def in_wsgi_bridge(request_id: str) -> bool:
    """Whether the replay of this request is inside a WSGI bridge now, in whatever task its middlewares put it."""
    return any(
        frame.f_globals.get("__name__", "").startswith(_BRIDGES) and _belongs(frame, request_id)
        for task in asyncio.all_tasks()
        for frame in _frames(task.get_coro())
    )


def _belongs(frame: FrameType, request_id: str) -> bool:
    scope = frame.f_locals.get("scope")
    return isinstance(scope, dict) and scope.get(MARK) == request_id


def _frames(awaitable: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it awaits, outermost first."""
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None)
        if frame is not None:
            yield frame
        awaitable = getattr(awaitable, "cr_await", None)
