"""Renews the leases of what this process works on, from a thread: a handler that blocks the event loop must lose nothing.

Only what is named is renewed. A job that was claimed and then forgotten, by whatever defect, is rescued after one lease.
It beats also when there is nothing to renew: `lifecycle.Pulse` says what for.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection

from .background import aside
from .events import Announce, Event, Trouble
from .settings import Settings
from .store import Store

_PATIENCE = 5.0
_BEATS = 4
"""In one lease."""
_TRIES = 16
"""In one lease, while the database does not answer: what is renewed late is to be renewed before others judge it."""


class Heartbeat:
    """Beats from `start` to `stop`. `held` gives the tokens; it is called in the thread."""

    def __init__(self, store: Store, settings: Settings, announce: Announce, held: Callable[[], Collection[int]]) -> None:
        self._store = store
        self._lease = settings.lease
        self._announce = announce
        self._held = held
        self._quit = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="queue-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def stop(self) -> None:
        """End, and wait for a renewal that is under way; but not for ever."""
        self._quit.set()
        await aside(self._thread.join, _PATIENCE)

    def _run(self) -> None:
        pause, trouble = self._lease / _BEATS, Trouble("heartbeat", self._tell)
        while not self._quit.wait(pause) and not self._loop.is_closed():
            try:
                self._store.renew(self._held())
            except Exception as error:
                pause = self._lease / _TRIES
                trouble.met(error, pause)
            else:
                pause = self._lease / _BEATS
                trouble.over()

    def _tell(self, event: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed under us
            self._loop.call_soon_threadsafe(self._announce, event)
