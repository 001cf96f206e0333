"""What all attempts of a process share, and how they hold on to a database that does not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from .background import retry_on_outage
from .errors import QueueError
from .events import Announce, Trouble
from .logbook import Shelf
from .replay import App
from .settings import Settings
from .store import Store
from .target import Targets
from .waitingroom import WaitingRoom

T = TypeVar("T")


@dataclass(slots=True)
class Surroundings:
    """What all attempts of a process share."""

    app: App
    store: Store
    tasks: WaitingRoom
    settings: Settings
    announce: Announce
    loop: asyncio.AbstractEventLoop
    """Kept, because asking for it costs a system call in Python 3.11."""
    shelf: Shelf
    targets: Targets
    state: Mapping[str, Any] | None = None
    """The lifespan's state, of which each replay gets a shallow copy."""
    host: asyncio.Task[Any] | None = None
    """The worker's own task."""
    clock: Callable[[], float] = time.time
    """Unix time in seconds."""

    def is_being_torn_down(self) -> bool:
        """Whether the event loop is ending and cancels everything; a handler may also cancel just itself."""
        return self.host is None or self.host.done() or self.host.cancelling() > 0

    async def insist(self, error: QueueError | None, verb: Callable[[], Awaitable[T]]) -> T | Literal[False]:
        """Do it, whatever state the database is in: work that was done is not thrown away for an outage.

        `error` is that of a first try. False also when the worker has ended meanwhile: then whoever comes next takes the job
        over.
        """
        return await retry_on_outage(verb, error, Trouble("settle", self.announce), self.is_being_torn_down)
