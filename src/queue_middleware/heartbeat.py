"""Renews the leases of what this process works on, from a thread: a handler that blocks the event loop must lose nothing.

Only what is named is renewed. A job that was claimed and then forgotten, by whatever defect, is rescued after one lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection

from .aside import aside
from .events import Announce, Outage
from .settings import Settings
from .store import Store

_PATIENCE = 5.0


class Heartbeat:
    """Beats from `start` to `stop`. `held` gives the tokens; it is called in the thread."""

    def __init__(self, store: Store, settings: Settings, announce: Announce, held: Callable[[], Collection[int]]) -> None:
        self._store = store
        self._pause = settings.lease / 4
        self._announce = announce
        self._held = held
        self._quit = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._beat, name="queue-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def stop(self) -> None:
        """End, and wait for a renewal that is under way; but not for ever."""
        self._quit.set()
        await aside(self._thread.join, _PATIENCE)

    def _beat(self) -> None:
        while not self._quit.wait(self._pause) and not self._loop.is_closed():
            try:
                if tokens := self._held():
                    self._store.renew(tokens)
            except Exception as error:
                with contextlib.suppress(RuntimeError):  # the loop was closed under us
                    self._loop.call_soon_threadsafe(self._announce, Outage("heartbeat", error, self._pause))
