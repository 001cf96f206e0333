"""The port of operators: what they see of the queue, and what they do to it.

Each docstring is a contract that the conformance suite checks. Each act is recorded in the transaction that carries it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from queue_middleware.errors import QueueError

from .audit import Action, AuditRecord
from .job_detail import JobDetail, KeptRequest
from .models import JobState, NewJob
from .pauses import Pause
from .processes import ProcessRecord
from .timeline import TimelineEntry


class OperatorStore(Protocol):
    """One process's view of a shared queue for operators. `operator` is the name under which an act is recorded."""

    # --- reading

    async def detail(self, request_id: str) -> JobDetail:
        """Everything about one request except bodies and headers. Raises `UnknownRequest`, `BadRequest`."""

    async def timeline(self, request_id: str) -> list[TimelineEntry]:
        """What happened to a request, in order of time. Raises `UnknownRequest`, `BadRequest`."""

    async def kept_request(self, request_id: str) -> KeptRequest:
        """The request of a job that has not ended, or that was kept. Raises `NotKept`, `UnknownRequest`, `BadRequest`."""

    async def pauses(self) -> list[Pause]:
        """The pauses that hold now, by route."""

    async def processes(self) -> list[ProcessRecord]:
        """The processes that run now, the oldest first."""

    async def audit(self, before: int | None = None, limit: int = 100) -> list[AuditRecord]:
        """What operators have done, the newest first; only records with an id below `before`."""

    # --- acts

    async def copy(self, copies: Sequence[tuple[str, NewJob]], operator: str) -> list[str | QueueError]:
        """Submit jobs, each as the copy of an ended one, whose request id comes first; the new request ids.

        Each copy and the job that it copies name each other. The limits for submissions hold. An error takes the place of the
        id of a copy that was refused, e.g. `NotEnded` and `UnknownRequest`.
        """

    async def cancel_many(self, keys: Sequence[int], operator: str, target: str) -> dict[int, JobState]:
        """End those of these jobs that wait, and mark those that run; the new states of those that were affected.

        A job that runs has the state `running` until its worker has ended it. `target` is recorded.
        """

    async def run_now(self, keys: Sequence[int], operator: str, target: str) -> list[int]:
        """Make delayed jobs due now, suspects too; the keys of those that were delayed."""

    async def pause(self, pause: Pause) -> None:
        """Hold the starts of a route from now on, in every process. Replaces an earlier pause of the same route."""

    async def resume(self, route: str, operator: str) -> bool:
        """End the pause of a route; False if it is not paused. `ALL_ROUTES` ends only the pause of all routes."""

    async def end_pauses(self) -> list[Pause]:
        """Delete the pauses that have ended by themselves, and return them. Recorded as acts of `audit.QUEUE`."""

    async def record(self, operator: str, action: Action, target: str, count: int) -> None:
        """Record an act that another port has carried out."""
