"""The places in which a process runs attempts: how many are occupied, and how many are reserved for jobs on their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from queue_middleware.jobs.models import Claim, NewJob


class Occupant(Protocol):
    """An attempt that occupies a slot."""

    @property
    def claim(self) -> Claim:
        """The claim that is being run."""


T = TypeVar("T", bound=Occupant)


class JobSlots(Generic[T]):
    """At most `size` attempts at once. `on_free` is called, in the event loop, whenever a slot becomes free."""

    def __init__(self, size: int, on_free: Callable[[], None]) -> None:
        self._size = size
        self._on_free = on_free
        self._reserved = 0
        self.running: dict[int, T] = {}
        """The attempts that occupy a slot, by the token of their claim."""
        self.overstaying: set[T] = set()
        """Attempts that no longer occupy a slot and still run. Kept, because the event loop holds its tasks weakly."""

    @property
    def free(self) -> int:
        """How many slots are neither occupied nor reserved."""
        return self._size - len(self.running) - self._reserved

    @property
    def are_empty(self) -> bool:
        """Whether nothing runs and nothing is on its way."""
        return not self.running and not self._reserved

    def reserve(self, job: NewJob) -> bool:
        """Reserve a slot for a job that is being submitted. After True, call `unreserve` once the claim is known.

        Every job takes one slot. A limit that depends on the job, e.g. on its route, refuses it here, and has to be known to
        `JobStore.claim` too, which selects among the queued jobs.
        """
        if self.free <= 0:
            return False
        self._reserved += 1
        return True

    def reserve_for_queue(self) -> int:
        """Reserve slots for jobs that the store is about to select; how many. Call `unreserve` for all of them afterwards.

        Half of the free slots: with all of them, a job that is submitted meanwhile could not start at once and would be
        queued; the next claim would find it there and take all slots again, and so on without end.
        """
        count = (max(self.free, 0) + 1) // 2
        self._reserved += count
        return count

    def unreserve(self, count: int = 1) -> None:
        """Give reservations back, before the slots are occupied or left free."""
        self._reserved -= count

    def occupy(self, attempt: T) -> None:
        """Give the attempt a slot. Its lease is renewed from now on."""
        self.running[attempt.claim.token] = attempt

    def vacate(self, attempt: T, *, still_running: bool = False) -> None:
        """Free the slot of an attempt that has ended, or whose code may go on without a slot."""
        if still_running:
            self.overstaying.add(attempt)
        else:
            self.overstaying.discard(attempt)
        if self.running.pop(attempt.claim.token, None) is not None:
            self._on_free()

    def tokens(self) -> list[int]:
        """The tokens of the running attempts; may be called from another thread."""
        return list(self.running)
