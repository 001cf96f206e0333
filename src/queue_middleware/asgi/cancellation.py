"""Cancels a call without breaking the threads and WSGI bridges that it may be waiting for.

A thread cannot be killed: cancelling the coroutine that waits for it would only make its slot look free. The threads of a2wsgi
hand their output to a coroutine of the call. If that coroutine is cancelled, the thread waits for it forever; three cancelled
streams block a bridge with three workers for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Iterator
from types import FrameType
from typing import Any

from .replay import App, Replay
from .scope import SCOPE_KEY

_BRIDGES = ("a2wsgi.",)
_THREADS = frozenset({"anyio.to_thread", "asyncio.threads", "asgiref.sync"})


async def invoke(app: App, scope: dict[str, Any], replay: Replay) -> None:
    """Call an application that may also be a plain function: one that returns some other awaitable, or raises."""
    await app(scope, replay.receive, replay.send)


def ends_process(error: BaseException) -> bool:
    """Whether it ends the process, as Ctrl-C does. `SystemExit` does not: servers respond to it in a handler with a 500.

    In a task that the handler itself has started, both have ended the event loop already.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup((KeyboardInterrupt, SystemExit)) is not None
    return isinstance(error, KeyboardInterrupt)


class CancellableCall:
    """Awaits a coroutine and returns what it raised, if anything, so that no traceback reaches further out than this.

    It can raise `CancelledError` in the coroutine when its current wait is over, instead of at once. It does so once, as
    `Task.cancel` does: `finally` blocks may await.
    """

    __slots__ = ("_cancel_next", "coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self.coroutine = coroutine
        self._cancel_next = False

    def cancel_next(self) -> None:
        """Raise `CancelledError` in the coroutine when its current wait is over."""
        self._cancel_next = True

    def in_thread(self) -> bool:
        """Whether it waits for a thread, which would continue after a cancellation."""
        return any(frame.f_globals.get("__name__") in _THREADS for frame in _frames(self.coroutine))

    def __await__(self) -> Generator[Any, Any, BaseException | None]:
        coroutine = self.coroutine
        error: BaseException | None = None
        try:
            while True:
                waiting = coroutine.send(None) if error is None else coroutine.throw(error)
                error = None
                try:
                    yield waiting
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as thrown:
                    error = thrown
                if self._cancel_next:
                    self._cancel_next = False
                    error = asyncio.CancelledError()
        except StopIteration:
            return None
        except BaseException as raised:
            return raised


def in_wsgi_bridge(request_id: str) -> bool:
    """Whether the replay of this request is inside a WSGI bridge now, in any task that a middleware may have started."""
    return any(
        frame.f_globals.get("__name__", "").startswith(_BRIDGES) and _belongs(frame, request_id)
        for task in asyncio.all_tasks()
        for frame in _frames(task.get_coro())
    )


def _belongs(frame: FrameType, request_id: str) -> bool:
    scope = frame.f_locals.get("scope")
    return isinstance(scope, dict) and scope.get(SCOPE_KEY) == request_id


def _frames(awaitable: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it awaits, outermost first."""
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None)
        if frame is not None:
            yield frame
        awaitable = getattr(awaitable, "cr_await", None)
        generator_frame = getattr(awaitable, "gi_frame", None)
        if generator_frame is not None and isinstance(call := generator_frame.f_locals.get("self"), CancellableCall):
            awaitable = call.coroutine
