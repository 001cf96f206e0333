"""What the middleware adds, in process, to a request that does not use the queue."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.scenario import Conditions, Figure, Metrics, Scenario, Variants
from queue_middleware import QueueMiddleware


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    return None


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    count = conditions.count(100_000, 20_000)
    wrapped = QueueMiddleware(_nothing, database=conditions.folder / "pass-through.sqlite3")
    yield {"application": lambda: _time(_nothing, count), "behind the queue": lambda: _time(wrapped, count)}


async def _time(app: Callable[[Any, Any, Any], Coroutine[Any, Any, None]], count: int) -> Metrics:
    """Microseconds of CPU for one call."""
    scope = {"type": "http", "path": "/some/other/route", "root_path": ""}
    began = time.thread_time()
    for _ in range(count):
        await app(scope, None, None)
    return {"call": (time.thread_time() - began) / count * 1e6}


SCENARIO = Scenario(
    name="pass-through",
    title="requests that do not use the queue, in process",
    open=_open,
    figures=(
        Figure(
            "pass-through.added",
            "added to a request of another route",
            "behind the queue",
            "call",
            ("application", "call"),
            "difference",
            "µs",
        ),
        Figure(
            "pass-through.ratio",
            "one call, behind the queue ÷ without",
            "behind the queue",
            "call",
            ("application", "call"),
        ),
    ),
    columns={"call": "CPU for one call, µs"},
    seconds=60,
    quick=True,
    split=5,
    note=("The application does nothing, so the difference of the CPU times of the two calls is what the middleware adds.",),
)
