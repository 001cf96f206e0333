"""What a queue has to know of the process that it runs in: its event loop, its forks, and the other queues there."""

from __future__ import annotations

import asyncio
import os
import weakref
from typing import Protocol
from weakref import WeakSet

from .errors import StoreError


class Resident(Protocol):
    """A queue of this process."""

    @property
    def home(self) -> tuple[str, object]:
        """The real path of its database, and the application that it calls."""

    def is_alive(self) -> bool:
        """Whether it has been started and has not ended."""

    def disown(self) -> None:
        """Called in a forked child."""


_residents: WeakSet[Resident] = WeakSet()
"""All that queues of one process share. It is looked at when one starts, and nothing else depends on it."""


def move_in(queue: Resident, *, alone: bool) -> None:
    """Called at a start. Raises `StoreError` where `alone` and another application of this process uses the same database."""
    for other in list(_residents) if alone else ():
        if other is not queue and other.home[0] == queue.home[0] and other.home[1] is not queue.home[1] and other.is_alive():
            raise StoreError(
                f"another application of this process uses the database {queue.home[0]}, and each would execute the requests "
                "of the other; give each a database of its own, e.g. database='second.sqlite3'. If they are one application, "
                "say so with the same name=… for both"
            )
    if queue not in _residents:
        _residents.add(queue)
        _watch_forks(queue)


def _watch_forks(queue: Resident) -> None:
    """A child process has our memory and not our threads: there the queue is not running, and says so."""
    reference = weakref.ref(queue)

    def in_child() -> None:
        if (resident := reference()) is not None:
            resident.disown()

    os.register_at_fork(after_in_child=in_child)


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs the calling coroutine; None where it is not one of asyncio, e.g. under trio."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if asyncio.current_task() is not None else None  # trio may be a guest in a loop of asyncio
