"""Numbers in memory that all processes of a database share: a change of one costs its readers nothing but a comparison."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from queue_middleware.jobs.store import Topic

_NUMBER = struct.Struct("Q")
_PIPES = 0
"""The place of the number of the wakeup pipes."""
_PLACES: dict[Topic, int] = {Topic.WORK: 1, Topic.CANCEL: 2, Topic.DELIVERY: 3, Topic.POLL: 4}
"""The places of the numbers of the topics. Followers of a status are notified through the wakeup pipes."""
_SIZE = _NUMBER.size * (1 + len(_PLACES))


class SharedNumbers:
    """The numbers of one database, in its lock file. They are random, because a counter would need a lock."""

    def __init__(self, database: Path) -> None:
        self._memory = _map(database.with_name(f"{database.name}.lock"))

    @property
    def are_shared(self) -> bool:
        """Whether other processes see them. Not if the file system has no shared memory, and not after `disown`."""
        return not isinstance(self._memory, bytearray)

    @property
    def pipes(self) -> int:
        """The number that changes whenever a wakeup pipe is created or removed."""
        return self.read(_PIPES)

    def change_pipes(self) -> None:
        """Store a new number for the wakeup pipes."""
        self.change(_PIPES)

    def read(self, place: int) -> int:
        """The number in this place."""
        number: int = _NUMBER.unpack_from(self._memory, place * _NUMBER.size)[0]
        return number

    def change(self, place: int) -> int:
        """Store a new number in this place, and return it."""
        new = os.urandom(_NUMBER.size)
        self._memory[place * _NUMBER.size : (place + 1) * _NUMBER.size] = new
        number: int = _NUMBER.unpack(new)[0]
        return number

    def close(self) -> None:
        """Close the memory. Idempotent."""
        self.disown()

    def disown(self) -> None:
        """Close the memory; from now on the numbers are private. Idempotent."""
        memory, self._memory = self._memory, bytearray(_SIZE)
        if not isinstance(memory, bytearray):
            memory.close()


class TopicChanges:
    """Which topics other processes have changed. Used in the event loop."""

    def __init__(self, numbers: SharedNumbers) -> None:
        self._numbers = numbers
        self._known = {topic: numbers.read(place) for topic, place in _PLACES.items()}

    @property
    def are_shared(self) -> bool:
        """Whether changes of other processes are seen here."""
        return self._numbers.are_shared

    def announce(self, topics: Iterable[Topic]) -> None:
        """Let other processes see, after a commit, that this process has changed these topics."""
        for topic in topics:
            place = _PLACES.get(topic)
            if place is None:
                continue
            # A change of another process that was not returned yet must still be returned.
            is_known = self._numbers.read(place) == self._known[topic]
            number = self._numbers.change(place)
            if is_known:
                self._known[topic] = number

    def changed(self) -> list[Topic]:
        """The topics that other processes have changed since the last call."""
        found = []
        for topic, place in _PLACES.items():
            number = self._numbers.read(place)
            if number != self._known[topic]:
                self._known[topic] = number
                found.append(topic)
        return found


def _map(path: Path) -> mmap.mmap | bytearray:
    """The memory of this file; a private one if the file system has no shared memory."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(file).st_size
        if size < _SIZE:
            os.pwrite(file, bytes(_SIZE - size), size)  # written, not just extended, so that the disk block exists
        return mmap.mmap(file, _SIZE)
    except OSError:
        return bytearray(_SIZE)
    finally:
        os.close(file)
