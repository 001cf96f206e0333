"""Occupy all threads of the event loop's default executor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MOST = 32
"""The largest default size of a loop's executor on any machine (`ThreadPoolExecutor`, `max_workers`)."""


@contextmanager
def all_threads_busy() -> Iterator[None]:
    """Keep all threads busy, as slow handlers do: work that needs one waits until the end of the block."""
    gate = threading.Event()
    loop = asyncio.get_running_loop()
    for _ in range(_MOST):
        loop.run_in_executor(None, gate.wait)
    try:
        yield
    finally:
        gate.set()
