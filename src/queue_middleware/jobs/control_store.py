"""The part of the operator's port that concerns the queue as a whole: pauses, processes, and the record of acts."""

from __future__ import annotations

from typing import Protocol

from .audit import Action, AuditRecord
from .pauses import Pause
from .processes import ProcessRecord


class ControlStore(Protocol):
    """One process's view of a shared queue for what controls it. Times are milliseconds since 1970."""

    # --- pauses

    async def pauses(self) -> list[Pause]:
        """The pauses that hold now, by route."""

    async def pause(self, pause: Pause) -> None:
        """Hold the starts of a route from now on, in every process. Replaces an earlier pause of the same route."""

    async def resume(self, route: str, operator: str) -> bool:
        """End the pause of a route; False if it is not paused. `ALL_ROUTES` ends only the pause of all routes."""

    async def end_pauses(self) -> list[Pause]:
        """Delete the pauses that have ended by themselves, and return them. Recorded as acts of `audit.QUEUE`."""

    # --- processes

    async def processes(self) -> list[ProcessRecord]:
        """The processes that run now, the oldest first."""

    async def register(self, concurrency: int) -> None:
        """List this process, which has this number of slots. `JobStore.renew` keeps the record up to date.

        If the record cannot be stored now, the next renewal stores it.
        """

    async def unregister(self) -> None:
        """List this process no longer. Idempotent; closing the database does it as well."""

    async def forget_processes(self) -> None:
        """Delete the records of processes that have ended without `unregister`. They are not listed in any case."""

    # --- the record of acts

    async def audit(self, before: int | None = None, limit: int = 100) -> list[AuditRecord]:
        """What operators have done, the newest first; only records with an id below `before`."""

    async def record(self, operator: str, action: Action, target: str, count: int) -> None:
        """Record an act that consists of several, e.g. of the submissions of an import."""
