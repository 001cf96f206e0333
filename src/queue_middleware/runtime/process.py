"""What a queue needs to know about its process: event loop, forks, other queues on the same database; why it does not run."""

from __future__ import annotations

import asyncio
import os
import weakref
from typing import Protocol
from weakref import WeakSet

from queue_middleware.errors import StoreError

NOT_STARTED = (
    "The queue is not running: this application received no lifespan startup event. Run it under a server that sends one "
    "(uvicorn --lifespan on), or put 'async with queue.running():' around your own startup."
)
STOPPING = "The queue is shutting down; send the request again after the restart."
FORKED = "The queue was started before this process was forked; start it in the process that serves requests."
NEEDS_ASYNCIO = (
    "The queue needs asyncio, but this server runs the application on another event loop (trio). The application works, the "
    "queue's routes do not; run it under asyncio, e.g. hypercorn --worker-class asyncio."
)
ELSEWHERE = (
    "This queue runs in the event loop of another thread and can serve only one. Create one queue per server, each with its "
    "own database, or let one server listen on both addresses."
)


class RunningQueue(Protocol):
    """A queue of this process."""

    @property
    def identity(self) -> tuple[str, object]:
        """The real path of its database, and the application that it calls."""

    def is_alive(self) -> bool:
        """Whether it has been started and has not ended."""

    def detach_after_fork(self) -> None:
        """Called in a forked child."""


_queues: WeakSet[RunningQueue] = WeakSet()
"""The only state that queues of one process share. It is read when a queue starts, and nothing else depends on it."""


def register(queue: RunningQueue, *, exclusive: bool) -> None:
    """Register a queue that starts.

    Raises `StoreError` if it is `exclusive` and another application of this process uses the same database.
    """
    for other in list(_queues) if exclusive else ():
        if _shares_database(queue, other):
            raise StoreError(
                f"another application of this process uses the database {queue.identity[0]}, and each would execute the "
                "requests of the other; give each a database of its own, e.g. database='second.sqlite3'. If both are one "
                "application, give both the same name=…"
            )
    if queue not in _queues:
        _queues.add(queue)
        _watch_forks(queue)


def _shares_database(queue: RunningQueue, other: RunningQueue) -> bool:
    (database, app), (other_database, other_app) = queue.identity, other.identity
    return other is not queue and other_database == database and other_app is not app and other.is_alive()


def _watch_forks(queue: RunningQueue) -> None:
    """A child process inherits the memory and not the threads: there the queue does not run, and has to report that."""
    reference = weakref.ref(queue)

    def in_child() -> None:
        if (inherited := reference()) is not None:
            inherited.detach_after_fork()

    os.register_at_fork(after_in_child=in_child)


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs the calling coroutine; None if it is not an asyncio loop, e.g. under trio."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if asyncio.current_task() is not None else None  # trio may run as a guest in an asyncio loop
