"""What operators do to the queue as a whole: pause and resume it, see its processes, read what operators have done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from queue_middleware.errors import BadRequest
from queue_middleware.events import Emit, Operated
from queue_middleware.jobs.audit import Action, AuditRecord, checked_operator
from queue_middleware.jobs.control_store import ControlStore
from queue_middleware.jobs.path_templates import MAX_LENGTH
from queue_middleware.jobs.pauses import ALL_ROUTES, Pause
from queue_middleware.jobs.processes import ProcessRecord
from queue_middleware.syntax.times import milliseconds_of

_LONGEST_REASON = 1000
"""Characters."""
MAX_PAGE = 1000
"""Records on one page."""


class QueueControl:
    """The operations behind `queue.pause`, `queue.processes` and the like. `clock` gives Unix seconds."""

    def __init__(self, operations: ControlStore, emit: Emit, clock: Callable[[], float]) -> None:
        self._operations = operations
        self._emit = emit
        self._clock = clock

    async def pause(self, route: str | None, reason: str, until: datetime | None, operator: str) -> None:
        """Hold the starts of a route, or of all routes. Raises `BadRequest`."""
        now = round(self._clock() * 1000)
        end = None if until is None else milliseconds_of("until", until)
        if end is not None and end <= now:
            raise BadRequest(f"until is {until}, which is over; pass a moment that is to come")
        if not isinstance(reason, str) or len(reason) > _LONGEST_REASON:
            raise BadRequest(f"the reason of a pause is a text of at most {_LONGEST_REASON} characters")
        operator, target = checked_operator(operator), _checked_route(route)
        await self._operations.pause(Pause(target, operator, reason, now, end))
        self._emit(Operated(operator, Action.PAUSE, target, 1))

    async def resume(self, route: str | None, operator: str) -> bool:
        """End the pause of a route, or that of all routes; False if there is none. Raises `BadRequest`."""
        operator, target = checked_operator(operator), _checked_route(route)
        resumed = await self._operations.resume(target, operator)
        if resumed:
            self._emit(Operated(operator, Action.RESUME, target, 1))
        return resumed

    async def pauses(self) -> list[Pause]:
        """The pauses that hold now, by route."""
        return await self._operations.pauses()

    async def processes(self) -> list[ProcessRecord]:
        """The processes that run now, the oldest first."""
        return await self._operations.processes()

    async def audit(self, before: int | None, limit: int) -> list[AuditRecord]:
        """What operators have done, the newest first. Raises `BadRequest`."""
        if not 1 <= limit <= MAX_PAGE:
            raise BadRequest(f"limit is {limit}; pass 1 to {MAX_PAGE}")
        return await self._operations.audit(before, limit)


def _checked_route(route: object) -> str:
    if route is None:
        return ALL_ROUTES
    if not isinstance(route, str) or not route.isprintable() or not 0 < len(route) <= MAX_LENGTH:
        raise BadRequest(f"a route is a text of 1 to {MAX_LENGTH} printable characters, e.g. '/items/{{id}}'")
    return route
