"""Notifies other processes of commits at once, through named pipes beside the database.

Each process with a listener creates a pipe; after a commit one byte is written to every pipe of the others. A number in shared
memory changes with the set of pipes, so while there are none a commit costs one comparison.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import mmap
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger("queue_middleware")
_NUMBER = struct.Struct("Q")
_PAUSE = 0.02
"""Seconds between two notifications of a listener, so that busy processes cost little."""


class WakeupPipes:
    """The pipes of one database file, used by one process. `notify` is called in the writing thread.

    Methods of our own pipe have one caller at a time: `listen` and `stop_listening` in the event loop, blocking ones elsewhere.
    """

    def __init__(self, database: Path, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._number = _shared_number(database.with_name(f"{database.name}.lock"))
        self._known = -1
        self._others: dict[Path, int] = {}
        self._own: tuple[int, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_warned = False

    # --- those of others

    def notify(self) -> None:
        """Write to the pipe of every other process."""
        number: int = _NUMBER.unpack_from(self._number)[0]
        if number != self._known and self._find():
            self._known = number
        for path, pipe in list(self._others.items()):
            try:
                os.write(pipe, b"!")
            except BlockingIOError:
                continue  # the pipe is full: its process has a notification to read
            except OSError:
                os.close(self._others.pop(path))

    def _find(self) -> bool:
        """Open those that are new; False where that could not be done, for instance without a free descriptor."""
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
            if error.errno == errno.ENXIO:  # no reader: its process is dead
                path.unlink(missing_ok=True)
            return error.errno not in (errno.EMFILE, errno.ENFILE)
        if stat.S_ISFIFO(os.fstat(pipe).st_mode):
            self._others[path] = pipe
        else:
            os.close(pipe)  # not a pipe: nothing must be written into it
        return True

    # --- our own: what blocks, and what belongs to the event loop

    def open(self, on_notify: Callable[[], None]) -> None:
        """`create`, then `listen`."""
        self.create()
        self.listen(on_notify)

    def create(self) -> None:
        """Make the pipe, so that others find it. Blocking. Repeatable. Without named pipes, or descriptors, it warns once."""
        if self._own is not None:
            return
        path = self._path()
        # It has its name only when something listens to it, or it would be taken for that of a dead process.
        hidden = path.with_name(f"{path.name}.new")
        opened: list[int] = []
        try:
            hidden.unlink(missing_ok=True)
            os.mkfifo(hidden, 0o600)
            # A writer too: without one a pipe is always at its end.
            for way in (os.O_RDONLY, os.O_WRONLY):
                opened.append(os.open(hidden, way | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))  # noqa: PERF401
            hidden.rename(path)
        except OSError as error:
            for pipe in opened:
                os.close(pipe)
            with contextlib.suppress(OSError):
                hidden.unlink(missing_ok=True)
            self._warn_once(error)
            return
        self._own = opened[0], opened[1]
        self._announce_change()

    def _warn_once(self, error: OSError) -> None:
        if not self._is_warned:
            self._is_warned = True
            _log.warning(
                "no named pipe beside the database (%s): commits of other processes are noticed by looking, every 50 ms; "
                "it is tried again with the next listener",
                error.strerror,
            )

    @property
    def is_open(self) -> bool:
        """Whether the pipe is there."""
        return self._own is not None

    def listen(self, on_notify: Callable[[], None]) -> None:
        """Call `on_notify` soon after every commit of another process, where there is a pipe. Repeatable."""
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

    def stop(self) -> None:
        """`stop_listening`, then `remove`."""
        self.stop_listening()
        self.remove()

    def stop_listening(self) -> None:
        """Listen no longer. Repeatable."""
        if self._timer is not None:
            self._timer.cancel()
        if self._own is not None:
            asyncio.get_running_loop().remove_reader(self._own[0])

    def remove(self) -> None:
        """Remove the pipe, which is not listened to any more. Blocking. Repeatable."""
        if self._own is not None:
            self._path().unlink(missing_ok=True)
            self._close_own()
            self._announce_change()

    def _path(self) -> Path:
        return self._database.with_name(f"{self._database.name}.wakeup-{self._owner}")

    def _announce_change(self) -> None:
        """Any new number will do; a counter would need its turn."""
        self._number[: _NUMBER.size] = os.urandom(_NUMBER.size)

    def _close_own(self) -> None:
        if self._own is not None:
            for pipe in {*self._own}:
                os.close(pipe)
            self._own = None

    # --- the end

    def close(self) -> None:
        """Let go of everything; nothing is listened to any more. Blocking. Repeatable."""
        self.remove()
        self.disown()

    def disown(self) -> None:
        """In a forked child: close the descriptors and leave the parent's pipe in place."""
        self._close_own()
        while self._others:
            os.close(self._others.popitem()[1])
        if not isinstance(self._number, bytearray):
            self._number.close()
            self._number = bytearray(_NUMBER.size)
        self._known = 0  # `notify` finds no new pipe from now on


def _shared_number(path: Path) -> mmap.mmap | bytearray:
    """The number in this file; where the file system has no shared memory one that no other process sees."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(file).st_size < _NUMBER.size:
            os.pwrite(file, bytes(_NUMBER.size), 0)  # written, not just made longer: room on the disk is then certain
        return mmap.mmap(file, _NUMBER.size)
    except OSError:
        return bytearray(_NUMBER.size)
    finally:
        os.close(file)
