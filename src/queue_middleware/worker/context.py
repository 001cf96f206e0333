"""What all attempts of a process share, and how they retry when the store is not available."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from queue_middleware.asgi.replay import App
from queue_middleware.background import retry_on_outage
from queue_middleware.errors import QueueError
from queue_middleware.events import AttemptStarted, Emit, Finished, is_observed
from queue_middleware.events.error_streak import ErrorStreak
from queue_middleware.jobs.routes import RouteTemplates
from queue_middleware.jobs.store import JobStore
from queue_middleware.observability.metrics.meter import Meter
from queue_middleware.settings import Settings
from queue_middleware.tasks.store import TaskStore
from queue_middleware.tasks.target import TargetResolver

from .log_buffer import LogBufferContext

T = TypeVar("T")


@dataclass(slots=True)
class WorkerContext:
    """What all attempts of a process share."""

    app: App
    store: JobStore
    tasks: TaskStore
    settings: Settings
    emit: Emit
    loop: asyncio.AbstractEventLoop
    """Kept here because asking for it costs a system call in Python 3.11."""
    logs: LogBufferContext
    targets: TargetResolver
    routes: RouteTemplates
    """Learns from each call which template its path has."""
    state: Mapping[str, Any] | None = None
    """The lifespan's state; each replay gets a shallow copy."""
    worker_task: asyncio.Task[Any] | None = None
    """The worker's own task."""
    clock: Callable[[], float] = time.time
    """Unix time in seconds."""
    meter: Meter | None = None
    observes_start: bool = True
    """Whether `AttemptStarted` has an observer. Like the next one it is asked once: every job has both events."""
    observes_end: bool = True
    """Whether `Finished` has an observer."""

    def __post_init__(self) -> None:
        self.observes_start = is_observed(self.emit, AttemptStarted)
        self.observes_end = is_observed(self.emit, Finished)

    def is_being_torn_down(self) -> bool:
        """Whether the event loop is ending and cancels all tasks. A handler can also cancel only itself."""
        task = self.worker_task
        return task is None or task.done() or task.cancelling() > 0

    def create_task(self, work: Awaitable[None], on_defect: Callable[[Exception], None]) -> asyncio.Task[None]:
        """Run `work` in a task; an exception of it is passed to `on_defect`."""

        async def run() -> None:
            try:
                await work
            except Exception as defect:
                on_defect(defect)

        return self.loop.create_task(run())

    async def retry_on_outage(self, call: Callable[[], Awaitable[T]], error: QueueError | None = None) -> T | Literal[False]:
        """Call the store until it succeeds, so that an outage does not discard work that is done.

        `error` is that of a first try. Returns False also when the worker has ended meanwhile: another process then takes over
        the job when its lease ends.
        """
        return await retry_on_outage(call, error, ErrorStreak("settle", self.emit), self.is_being_torn_down)
