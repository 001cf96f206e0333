"""The threads that an event loop has for everybody, all of them taken."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MOST = 32
"""As many as Python gives a loop, whatever the machine (`ThreadPoolExecutor`, `max_workers`)."""


@contextmanager
def all_threads_kept() -> Iterator[None]:
    """As by handlers that are slow: who asks for one waits until the end of the block."""
    gate = threading.Event()
    loop = asyncio.get_running_loop()
    for _ in range(_MOST):
        loop.run_in_executor(None, gate.wait)
    try:
        yield
    finally:
        gate.set()
