"""Bells: who wants to know at once when another process has committed something hangs one up, and the others ring it.

A bell is a named pipe beside the database. Who commits looks at a number in memory that all processes share, and for bells only
when it has changed; so while there are none a commit costs nothing more than that look.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger("queue_middleware")
_NUMBER = struct.Struct("Q")
_PAUSE = 0.02
"""Seconds for which a bell that was heard is not listened to: however busy others are, hearing them costs little."""


class Bells:
    """Those of one file, seen by one process. `ring` is called in the writing thread, all else in the event loop."""

    def __init__(self, database: Path, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._number = _shared_number(database.with_name(f"{database.name}.lock"))
        self._known = -1
        self._others: dict[Path, int] = {}
        self._mine: tuple[int, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_warned = False

    # --- those of others

    def ring(self) -> None:
        """Ring every bell but our own."""
        number: int = _NUMBER.unpack_from(self._number)[0]
        if number != self._known:
            self._known = number
            self._find()
        for path, pipe in list(self._others.items()):
            try:
                os.write(pipe, b"!")
            except BlockingIOError:
                continue  # it was rung so often that nobody can have missed it
            except OSError:
                os.close(self._others.pop(path))

    def _find(self) -> None:
        prefix = f"{self._database.name}.bell-"
        paths = {path for path in self._database.parent.iterdir() if path.name.startswith(prefix) and path.suffix != ".new"}
        paths.discard(self._path())
        for path in self._others.keys() - paths:
            os.close(self._others.pop(path))
        for path in paths - self._others.keys():
            try:
                self._others[path] = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nobody listens to it: its process is dead
                    path.unlink(missing_ok=True)

    # --- our own

    def hang(self, told: Callable[[], None]) -> None:
        """Call `told` soon after every commit of another process. Repeatable. Without named pipes it does nothing."""
        if self._mine is not None:
            return
        path = self._path()
        # It has its name only when somebody listens to it, or it would be taken for that of a dead process.
        hidden = path.with_name(f"{path.name}.new")
        try:
            hidden.unlink(missing_ok=True)  # of an attempt that failed half-way, or a link that stands in its place
            os.mkfifo(hidden, 0o600)
            reader = os.open(hidden, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            self._mine = reader, reader  # closed also where the next step fails
            # Without a writer a pipe is always at its end.
            writer = os.open(hidden, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            self._mine = reader, writer
            hidden.rename(path)
            self._tell_others()
            self._listen(told)
        except OSError as error:
            self._drop_mine()
            with contextlib.suppress(OSError):
                hidden.unlink(missing_ok=True)
            self._warn_once(error)

    def _warn_once(self, error: OSError) -> None:
        if not self._is_warned:
            self._is_warned = True
            _log.warning(
                "no named pipe beside the database (%s): commits of other processes are noticed by looking, every 50 ms; "
                "it is tried again with the next listener",
                error.strerror,
            )

    def _listen(self, told: Callable[[], None]) -> None:
        assert self._mine is not None, "a bell that does not hang cannot be heard"  # noqa: S101
        asyncio.get_running_loop().add_reader(self._mine[0], self._on_ring, told)

    def _on_ring(self, told: Callable[[], None]) -> None:
        assert self._mine is not None, "a bell that does not hang cannot be heard"  # noqa: S101
        loop = asyncio.get_running_loop()
        with contextlib.suppress(BlockingIOError):
            os.read(self._mine[0], 2**16)
        loop.remove_reader(self._mine[0])
        self._timer = loop.call_later(_PAUSE, self._listen, told)
        told()

    def take_down(self) -> None:
        """Want to know no longer. Repeatable."""
        if self._mine is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        asyncio.get_running_loop().remove_reader(self._mine[0])
        self._path().unlink(missing_ok=True)
        self._drop_mine()
        self._tell_others()

    def _path(self) -> Path:
        return self._database.with_name(f"{self._database.name}.bell-{self._owner}")

    def _tell_others(self) -> None:
        """Any new number will do; a counter would need its turn."""
        self._number[: _NUMBER.size] = os.urandom(_NUMBER.size)

    def _drop_mine(self) -> None:
        if self._mine is not None:
            for pipe in {*self._mine}:
                os.close(pipe)
            self._mine = None

    # --- the end

    def close(self) -> None:
        """Let go of everything. Repeatable."""
        self.take_down()
        self.disown()

    def disown(self) -> None:
        """In a forked child: close what is open and leave the parent's bell where it is."""
        self._drop_mine()
        while self._others:
            os.close(self._others.popitem()[1])
        if not isinstance(self._number, bytearray):
            self._number.close()
            self._number = bytearray(_NUMBER.size)
        self._known = 0  # whoever rings now finds nothing new


def _shared_number(path: Path) -> mmap.mmap | bytearray:
    """The number in this file; where the file system has no shared memory one that nobody else sees."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(file).st_size < _NUMBER.size:
            os.pwrite(file, bytes(_NUMBER.size), 0)  # written, not just made longer: room on the disk is then certain
        return mmap.mmap(file, _NUMBER.size)
    except OSError:
        return bytearray(_NUMBER.size)
    finally:
        os.close(file)
