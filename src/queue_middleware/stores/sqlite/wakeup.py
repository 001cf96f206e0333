"""Notifies other processes of commits at once, through named pipes next to the database.

Each process with a listener creates a pipe. After a commit, a byte is written to the pipe of every other process. A number in
shared memory changes whenever a pipe is created or removed; while there are no pipes, a commit only compares this number.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

from .shared_numbers import SharedNumbers

_log = logging.getLogger("queue_middleware")
_PAUSE = 0.005
"""Seconds between two notifications of a listener, so that busy processes cost little. A client may wait for the next one."""


class WakeupPipes:
    """The pipes of one database, as used by one process.

    `notify` is called in the writing thread. The methods for the process's own pipe are called by one caller at a time:
    `listen` and `stop_listening` in the event loop, the blocking ones in other threads.
    """

    def __init__(self, database: Path, owner: str, numbers: SharedNumbers) -> None:
        self._database = database
        self._owner = owner
        self._numbers = numbers
        self._known = -1
        self._is_closed = False
        self._others: dict[Path, int] = {}
        self._own: tuple[int, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_warned = False

    # --- the pipes of other processes

    def notify(self) -> None:
        """Write to the pipe of every other process."""
        number = self._numbers.pipes
        if number != self._known and not self._is_closed and self._find():
            self._known = number
        for path, pipe in list(self._others.items()):
            try:
                os.write(pipe, b"!")
            except BlockingIOError:
                continue  # the pipe is full: its process has a notification to read
            except OSError:
                os.close(self._others.pop(path))

    def _find(self) -> bool:
        """Open the new pipes. False if one could not be opened, for instance because no descriptor is free."""
        prefix = f"{self._database.name}.wakeup-"
        try:
            paths = {path for path in self._database.parent.iterdir() if path.name.startswith(prefix) and path.suffix != ".new"}
        except OSError:
            return False
        paths.discard(self._path())
        for path in self._others.keys() - paths:
            os.close(self._others.pop(path))
        opened = [self._open(path) for path in paths - self._others.keys()]
        return all(opened)

    def _open(self, path: Path) -> bool:
        try:
            pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no reader, so its process is dead
                path.unlink(missing_ok=True)
            return error.errno not in (errno.EMFILE, errno.ENFILE)
        if stat.S_ISFIFO(os.fstat(pipe).st_mode):
            self._others[path] = pipe
        else:
            os.close(pipe)  # another kind of file, which must not be written to
        return True

    # --- the process's own pipe

    def create(self) -> None:
        """Create the pipe. Blocking. Idempotent. Logs one warning if the system has no named pipes or no free descriptors."""
        if self._own is not None:
            return
        path = self._path()
        # The pipe gets its name only when it has a reader, or other processes would consider its process dead.
        hidden = path.with_name(f"{path.name}.new")
        opened: list[int] = []
        try:
            hidden.unlink(missing_ok=True)
            os.mkfifo(hidden, 0o600)
            # It is opened for writing as well: a pipe without a writer is always at its end.
            for mode in (os.O_RDONLY, os.O_WRONLY):
                opened.append(os.open(hidden, mode | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))  # noqa: PERF401
            hidden.rename(path)
        except OSError as error:
            for pipe in opened:
                os.close(pipe)
            with contextlib.suppress(OSError):
                hidden.unlink(missing_ok=True)
            self._warn_once(error)
            return
        self._own = opened[0], opened[1]
        self._numbers.change_pipes()

    def _warn_once(self, error: OSError) -> None:
        if not self._is_warned:
            self._is_warned = True
            _log.warning(
                "no named pipe can be created next to the database (%s): commits of other processes are detected by polling, "
                "every 50 ms; the next listener tries again",
                error.strerror,
                extra={"queue_event": "no_named_pipe"},
            )

    @property
    def is_open(self) -> bool:
        """Whether the pipe exists."""
        return self._own is not None

    def listen(self, on_notify: Callable[[], None]) -> None:
        """Call `on_notify` soon after every commit of another process, if the pipe exists. Idempotent."""
        if self._own is not None:
            asyncio.get_running_loop().add_reader(self._own[0], self._on_notify, on_notify)

    def _on_notify(self, on_notify: Callable[[], None]) -> None:
        assert self._own is not None, "there is no pipe to listen to"  # noqa: S101
        loop = asyncio.get_running_loop()
        with contextlib.suppress(BlockingIOError):
            os.read(self._own[0], 2**16)
        loop.remove_reader(self._own[0])
        self._timer = loop.call_later(_PAUSE, self.listen, on_notify)
        on_notify()

    def stop_listening(self) -> None:
        """Stop calling `on_notify`. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._own is not None:
            asyncio.get_running_loop().remove_reader(self._own[0])

    def remove(self) -> None:
        """Remove the pipe, after `stop_listening`. Blocking. Idempotent."""
        if self._own is not None:
            self._path().unlink(missing_ok=True)
            self._close_own()
            self._numbers.change_pipes()

    def _path(self) -> Path:
        return self._database.with_name(f"{self._database.name}.wakeup-{self._owner}")

    def _close_own(self) -> None:
        if self._own is not None:
            for pipe in {*self._own}:
                os.close(pipe)
            self._own = None

    # --- the end

    def close(self) -> None:
        """Remove the pipe and close all descriptors, after `stop_listening`. Blocking. Idempotent."""
        self.remove()
        self.disown()

    def disown(self) -> None:
        """In a forked child: close the descriptors and leave the parent's pipe in place."""
        self._close_own()
        while self._others:
            os.close(self._others.popitem()[1])
        self._is_closed = True
