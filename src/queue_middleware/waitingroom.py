"""The port of those who wait for somebody outside: callbacks, signals, polls, and the time after which nobody waits any more.

A job goes in with the answer of its attempt, and the first last word ends it; all others come too late.

Values in, values out; each docstring is a contract that the store suite checks. A verb that changes something has committed
it, durably, when it returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from .errors import QueueError
from .models import Claim, Failure, JobState, Rescue, StoredResponse
from .tasks import (
    Channel,
    ClaimedPolls,
    Places,
    Poll,
    Resolution,
    Resolved,
    SecretId,
    TaskPage,
    TaskRecord,
    TaskStatus,
    Wait,
    Waiter,
)
from .taskspec import Task

Heard = Callable[[JobState | QueueError | None], None]
"""Called in the event loop with the result of `conclude`, or why there is none."""


class WaitingRoom(Protocol):
    """One process's view of what waits, and of all tasks."""

    # --- the attempt's verbs

    def expect(self, claim: Claim, task: Task) -> Awaitable[bool]:
        """The running attempt of a plain submission has asked for its callback URL; False when the claim is no longer held."""

    def conclude(
        self, claim: Claim, task: Task, outcome: StoredResponse | Failure, wait: Wait | None, heard: Heard | None = None
    ) -> Awaitable[JobState | None]:
        """End an attempt of a job that has a task: what `Store.complete` and `Store.fail` do for the others.

        With `wait` the job waits from now on, its answer kept for the polls. But a last word that came during the attempt ends
        it, however the attempt has ended. The result is where the job stands then; None when the claim is no longer held. Said
        again by the same claim it changes nothing, and tells where the job stands by now.
        """

    # --- verbs of those outside

    async def find(self, secret: SecretId, digest: bytes) -> Waiter:
        """The job that one of these hashes belongs to. Raises `UnknownRequest`."""

    async def resolve(self, key: int, channel: Channel, resolution: Resolution) -> Resolved:
        """Say the last word: end the job, with its webhook due in the same transaction, or see that it has ended.

        What waits for a turn is ended too: a call whose answer was lost may have reached its target. While an attempt runs the
        word is kept until it ends. Raises `UnknownRequest` when retention has taken the job.
        """

    async def note(self, key: int, event: str) -> None:
        """Keep a word that is not the last; of several the latest stays. Nothing happens to a job that has ended."""

    # --- the poller's verbs

    async def claim_polls(self, places: Places) -> ClaimedPolls:
        """Start polls that are due, the longest due first, as far as `turns.Choice` has a place for their hosts.

        A host that has all it may have makes nobody else wait, however much is due there; what has to wait for it may be put
        off for some seconds. Each begins a lease, as an attempt does; one whose lease is lost is due again.
        """

    async def settle_poll(self, poll: Poll, *, next_in: float | None, event: str | None = None, troubles: int = 0) -> bool:
        """Record a poll that was not the end; the next is due in `next_in` seconds, or there is none and the time decides.

        `troubles` is what the next is told. False when it is no longer held, or the job has ended.
        """

    # --- the janitor's verb

    async def time_out(self) -> list[Rescue]:
        """Fail what has waited for too long, some hundreds at once; none when there are none left.

        One that has a last poll to come is left to it for a minute.
        """

    # --- the owner's verbs

    async def record(self, request_id: str) -> TaskRecord:
        """One task, with its answer when it has ended. Raises `UnknownRequest` for what is no task, and `BadRequest`."""

    async def page(self, client: str, status: TaskStatus | None, *, limit: int, offset: int) -> TaskPage:
        """Tasks of one client (`NewJob.client`), the newest first, all or those of one status."""
