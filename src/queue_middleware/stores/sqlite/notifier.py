"""Calls the listeners of a process after its own commits and after those of other processes."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable

from queue_middleware.background import run_in_thread
from queue_middleware.errors import QueueError
from queue_middleware.jobs.store import Topic

from .connection import Connection
from .shared_numbers import TopicChanges
from .wakeup import WakeupPipes

_log = logging.getLogger("queue_middleware")

_POLL_INTERVAL = 0.05
"""Seconds between two checks for commits of other processes."""
_READ_INTERVAL = 0.5
"""Seconds between two checks that read the database, where shared memory has what other processes announce."""
_LINGER = 5.0
"""Seconds for which the wakeup pipe stays open after the last listener to `Topic.STATUS` has left: the next often follows."""


class Notifier:
    """The listeners of one process. Used in the event loop."""

    def __init__(self, pipes: WakeupPipes, changes: TopicChanges) -> None:
        self._pipes = pipes
        self._changes = changes
        self._listeners: dict[Topic, list[Callable[[], None]]] = {topic: [] for topic in Topic}
        self._pipe_task: asyncio.Task[None] | None = None
        self._closed = False

    def subscribe(self, topic: Topic, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every change of this kind; the returned function unsubscribes it."""
        self._listeners[topic].append(listener)
        if topic is Topic.STATUS:
            self._update_pipe()
        return lambda: self._unsubscribe(topic, listener)

    def _unsubscribe(self, topic: Topic, listener: Callable[[], None]) -> None:
        self._listeners[topic].remove(listener)
        if topic is Topic.STATUS:
            asyncio.get_running_loop().call_later(_LINGER, self._update_pipe)

    # The pipe is created and removed in a thread. If it cannot be created, `poll` reads the database each time.

    def _update_pipe(self) -> None:
        if not self._closed and (self._pipe_task is None or self._pipe_task.done()):
            self._pipe_task = asyncio.get_running_loop().create_task(self._sync_pipe(), name="queue-wakeup")

    async def _sync_pipe(self) -> None:
        """Create or remove the pipe until it exists if and only if it is wanted."""
        while self.status_is_wanted is not self._pipes.is_open:
            if self._pipes.is_open:
                self._pipes.stop_listening()
                await run_in_thread(self._pipes.remove)
            else:
                await run_in_thread(self._pipes.create)
                if not self._pipes.is_open:
                    return
                self._pipes.listen(lambda: self.publish((Topic.STATUS,)))
                # A listener may have read the status before another process changed it, when the pipe did not exist yet.
                self.publish((Topic.STATUS,))

    async def close(self) -> None:
        """Stop polling. The pipe is closed by `WakeupPipes.close`. May be called repeatedly."""
        self._closed = True
        if self._pipe_task is not None:
            await asyncio.wait((self._pipe_task,))
        self._pipes.stop_listening()

    @property
    def status_is_wanted(self) -> bool:
        """Whether `Topic.STATUS` has a listener."""
        return bool(self._listeners[Topic.STATUS])

    def publish_commit(self, topics: set[Topic]) -> None:
        """Call all listeners of these topics, here and in the other processes, and those of `STATUS` here, after a commit.

        Every commit may have changed a status. A listener that was subscribed during the transaction has to be called too: it
        may have read the status before the commit.
        """
        self._changes.announce(topics)
        self.publish(topics)
        self.publish((Topic.STATUS,))

    def announce(self, topics: Iterable[Topic]) -> None:
        """Call all listeners of these topics in the other processes only."""
        self._changes.announce(topics)

    def publish(self, topics: Iterable[Topic]) -> None:
        """Call all listeners of these topics. An exception of one listener does not affect the others."""
        for topic in topics:
            for listener in tuple(self._listeners[topic]):
                try:
                    listener()
                except Exception:
                    _log.exception("a listener to %s failed", topic, extra={"queue_event": "listener_failed"})

    async def poll(self, connection: Connection, known_version: Callable[[], int | None]) -> None:
        """Notice the commits of other processes.

        What they announce in shared memory is compared each time. Some changes are not announced: those of other programs, and
        the last one of a process that is killed between the commit and the announcement. Others are announced late, because the
        event loop of their process is blocked. Therefore `PRAGMA data_version`, which changes only with the writes of other
        connections, is read less often. It is read on `connection`, the writing one; not if `known_version` returns the version
        that its transactions have seen. Listeners to `STATUS` are called sooner, through the wakeup pipe.
        """
        loop = asyncio.get_running_loop()
        seen, read_at = None, loop.time()
        while True:
            await asyncio.sleep(_POLL_INTERVAL)
            self.publish(self._changes.changed())
            if self._all_is_announced and loop.time() < read_at:
                continue
            read_at = loop.time() + _READ_INTERVAL
            version = known_version()
            if version is None:
                try:
                    version = await connection.call(_data_version)
                except QueueError:
                    continue
            if version != seen:
                seen = version
                self.publish(Topic)

    @property
    def _all_is_announced(self) -> bool:
        """Whether there is shared memory, and a pipe if one is wanted."""
        return self._changes.are_shared and (self._pipes.is_open or not self.status_is_wanted)


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
