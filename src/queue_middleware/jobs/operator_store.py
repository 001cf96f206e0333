"""The port of operators: what they see of the queue, and what they do to it.

Each docstring is a contract that the conformance suite checks. Each act is recorded in the transaction that carries it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from queue_middleware.errors import QueueError

from .control_store import ControlStore
from .job_detail import JobDetail, KeptRequest
from .models import JobState, NewJob
from .timeline import TimelineEntry


class OperatorStore(ControlStore, Protocol):
    """One process's view of a shared queue for operators. `operator` is the name under which an act is recorded."""

    # --- reading

    async def detail(self, request_id: str) -> JobDetail:
        """Everything about one request except bodies and headers. Raises `UnknownRequest`, `BadRequest`."""

    async def timeline(self, request_id: str) -> list[TimelineEntry]:
        """What happened to a request, in order of time. Raises `UnknownRequest`, `BadRequest`."""

    async def kept_request(self, request_id: str) -> KeptRequest:
        """The request of a job that has not ended, or that was kept. Raises `NotKept`, `UnknownRequest`, `BadRequest`."""

    async def kept_requests(self, request_ids: Sequence[str]) -> list[KeptRequest | QueueError]:
        """As `kept_request` for several, whose bodies are in memory together. An error takes the place of a request."""

    # --- acts

    async def copy(self, originals: Sequence[tuple[str, NewJob]], operator: str, target: str) -> list[str | QueueError]:
        """Submit jobs, each as the copy of an ended one, whose request id comes first; the new request ids.

        Each copy and the job that it copies name each other. The limits for submissions hold. An error takes the place of the
        id of a copy that was refused, e.g. `NotEnded` and `UnknownRequest`. One transaction; `target` is recorded.
        """

    async def cancel_many(self, keys: Sequence[int], operator: str, target: str) -> dict[int, JobState]:
        """End those of these jobs that wait, and mark those that run; the new states of those that were affected.

        A job that runs has the state `running` until its worker has ended it. Many jobs take several transactions, each of
        which records `target`; jobs that have ended meanwhile are left out.
        """

    async def run_now(self, keys: Sequence[int], operator: str, target: str) -> list[int]:
        """Make delayed jobs due now, suspects and those with a start time too; the keys of those that were delayed."""
