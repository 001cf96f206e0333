"""The part of the operator's port that concerns the queue as a whole, the same for every database."""

from __future__ import annotations

from collections.abc import Callable, Collection

from queue_middleware.jobs.audit import Action, AuditRecord
from queue_middleware.jobs.pauses import Pause, paused_routes
from queue_middleware.jobs.processes import ProcessRecord

from . import audit, pauses, processes
from .access import Read, Write
from .transaction import Queries


class CommonControlStore:
    """`jobs.control_store.ControlStore` on the operations and reads of a store.

    `clock` gives milliseconds since 1970. `owner` is that of this process; `living` returns the owners that are running. It may
    block.
    """

    def __init__(
        self,
        write: Write,
        read: Read,
        read_many: Read,
        clock: Callable[[], int],
        living: Callable[[], Collection[str]],
        owner: Callable[[], str],
    ) -> None:
        self._write = write
        self._read = read
        self._read_many = read_many
        self._clock = clock
        self._owner = owner
        self._living = living
        self.process: ProcessRecord | None = None
        """This process as it is listed; None before `register` and after `unregister`."""

    # --- pauses

    async def pauses(self) -> list[Pause]:
        """Read the pauses that hold now."""
        stored = await self._read(pauses.read)
        held = paused_routes(stored, self._clock())
        return [one for one in stored if one.route in held]

    async def pause(self, pause: Pause) -> None:
        """Hold the starts of a route."""
        await self._write(pauses.pause, pause)

    async def resume(self, route: str, operator: str) -> bool:
        """End the pause of a route."""
        return await self._write(pauses.resume, (route, operator))

    async def end_pauses(self) -> list[Pause]:
        """Delete the pauses that have ended by themselves."""
        stored = await self._read(pauses.read)
        if len(paused_routes(stored, self._clock())) == len(stored):
            return []
        return await self._write(pauses.end_overdue, None)

    # --- processes

    async def register(self, concurrency: int) -> None:
        """List this process."""
        self.process = processes.this_process(self._owner(), concurrency, self._clock())
        await self._write(processes.put, self.process)

    async def unregister(self) -> None:
        """List this process no longer."""
        process, self.process = self.process, None
        if process is not None:
            await self._write(processes.delete, (process.owner,))

    async def processes(self) -> list[ProcessRecord]:
        """Read the processes that run now, the oldest first."""
        return [record for record, is_alive in await self._processes() if is_alive]

    async def forget_processes(self) -> None:
        """Delete the processes that do not run any more."""
        dead = [record.owner for record, is_alive in await self._processes() if not is_alive]
        if dead:
            await self._write(processes.delete, dead)

    async def _processes(self) -> list[tuple[ProcessRecord, bool]]:
        """All stored processes, and whether each is running."""

        def work(queries: Queries) -> list[tuple[ProcessRecord, bool]]:
            stored = processes.read(queries)
            living = set(self._living())  # afterwards, because a process is stored only while it is alive
            return [(record, record.owner in living) for record in stored]

        found: list[tuple[ProcessRecord, bool]] = await self._read_many(work)
        return found

    # --- the record of acts

    async def audit(self, before: int | None = None, limit: int = 100) -> list[AuditRecord]:
        """Read what operators have done, the newest first."""
        return await self._read_many(lambda queries: audit.records(queries, before, limit))

    async def record(self, operator: str, action: Action, target: str, count: int) -> None:
        """Record an act that consists of several."""
        await self._write(audit.record, (operator, action, target, count))
