"""The port of metrics: adds what was counted to the stored numbers, and reads all numbers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from queue_middleware.jobs.struct import Struct

from .numbers import Numbers, Row


class NumberSource(Protocol):
    """What counts in this process."""

    @property
    def has_counted(self) -> bool:
        """Whether there is something to store."""

    def take(self) -> Numbers:
        """What was counted since the last call."""

    def put_back(self, numbers: Numbers) -> None:
        """Keep numbers that could not be stored."""

    def committed(self, seconds: float, operations: int) -> None:
        """Count a write transaction."""


class StoredNumbers(Struct, frozen=True):
    """The numbers of all processes."""

    rows: list[Row]
    created_at: int
    """When the counters and histograms began, which is when the database was created, in milliseconds since 1970."""


class MetricsStore(Protocol):
    """One process's view of the numbers of a shared queue.

    What was counted joins a transaction that is made anyway, at most once a second. So an idle queue writes nothing, and a
    process that is killed loses the counts of one second at most, or of two if it was idle.
    """

    def attach(self, source: NumberSource) -> None:
        """Store what this source counts from now on."""

    async def flush(self) -> None:
        """Store what was counted, unless numbers were stored less than a second ago. Called every second."""

    async def close(self) -> None:
        """Store what was counted, if that is possible."""

    async def read(self) -> StoredNumbers:
        """Read all numbers. The time that this takes does not depend on how many requests have ended."""

    def read_now(self) -> StoredNumbers:
        """Read all numbers, from any thread. Blocking."""

    def gauges_now(self) -> list[Row] | None:
        """Read the gauges, from any thread. Blocking. None in all processes that run but the oldest, which read little."""

    async def tallies(self, names: Collection[str], since: int) -> list[Row]:
        """Read the sums of some tallies since a time, in milliseconds since 1970; with a route in place of label values."""
