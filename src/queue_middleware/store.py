"""The storage port: the verbs of a job's life. Values in, values out; each docstring is a contract that the store suite checks.

A verb that changes something has committed it, durably, when it returns. A verb that names a claim changes nothing and returns
False when the claim is no longer held: its lease ran out and somebody else has the job. That is an ordinary outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from .counts import Counts
from .ends import Loss
from .errors import QueueError
from .models import (
    Cancelled,
    Claim,
    Failure,
    Glance,
    Job,
    LogLine,
    NewJob,
    Progress,
    Receipt,
    Rescue,
    Result,
    StoredResponse,
)

Told = Callable[[bool | QueueError], None]
"""Called in the event loop with what a verb has done, or why it could not."""


class Topic(StrEnum):
    """What a listener can be told about."""

    WORK = "work"
    """A job may be claimable."""
    CANCEL = "cancel"
    """A running job is to be cancelled, or was taken from its owner."""
    DELIVERY = "delivery"
    """A webhook may be due."""
    POLL = "poll"
    """A provider may be due to be asked."""
    STATUS = "status"
    """A job may have changed in something that its submitter can see."""


class Store(Protocol):
    """One process's view of the shared queue. Its owner name is random for each start."""

    def subscribe(self, topic: Topic, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` in the event loop after every change of this kind by any process. It may be called in vain.

        What is returned ends it. As long as nobody listens to `STATUS` nobody is told of it, and nothing is spent on it.
        """

    # --- the submitter's verbs

    def submit(
        self, new: NewJob, *, start: bool = False, begin: Callable[[Claim | None], None] | None = None
    ) -> Awaitable[Receipt]:
        """Store a job. With `start`, and nobody waiting, it is claimed in the same transaction, as `Receipt.claim`.

        `begin` is then called once in the event loop, with the claim or with None where there is none, also when the caller
        has stopped waiting: what was claimed has to be run.

        Raises `QueueFull` (`max_queued`, `max_tasks`), `TooManyQueued` (the client's limits, or
        `new.max_queue_length`), `DiskFull`, `StoreBusy`.
        """

    async def job(self, request_id: str) -> Job:
        """The job as it stands. Raises `UnknownRequest`, or `BadRequest` for what is no id."""

    async def glance(self, keys: Sequence[int], *, positions: bool) -> list[Glance]:
        """The jobs with these keys as they stand, in any order; those that retention has taken are missing.

        Asked after another question it does not show an earlier state than that one's answer.
        """

    async def result(self, request_id: str) -> Result:
        """The job with its answer. Raises `StillInProgress` before the end, `UnknownRequest`, `BadRequest`."""

    async def output(self, key: int, number: int) -> bytes:
        """Part `number` (from 0) of a streamed answer. Raises `UnknownRequest` when retention has taken it."""

    async def logs(self, key: int, after: int = 0) -> list[LogLine]:
        """The lines of a job whose number is larger than `after`, in order; none when retention has taken them.

        Asked after the job was seen at its end, they are all, unless the database failed when the last ones were told.
        """

    async def cancel(self, request_id: str) -> Cancelled:
        """End a waiting job at once; note the wish on a running one. Raises `UnknownRequest`, `BadRequest`."""

    # --- the worker's verbs

    async def claim(self, limit: int) -> list[Claim]:
        """Start up to `limit` jobs, by priority, then first come. Each claim charges an attempt and begins a lease."""

    def append(self, claim: Claim, number: int, data: bytes) -> Awaitable[bool]:
        """Store part `number` of the answer while it is being produced."""

    def complete(self, claim: Claim, response: StoredResponse, told: Told | None = None) -> Awaitable[bool]:
        """Store the application's answer, end the job, and make its webhook due, in one transaction.

        Said again by the same claim it is True again and changes nothing; so is `fail`. `told` is called with the result or
        the failure in the event loop, whether or not anybody awaits it.
        """

    def fail(self, claim: Claim, failure: Failure, told: Told | None = None) -> Awaitable[bool]:
        """End the job without an answer; `CLIENT_CANCELLED` ends it as cancelled. Its webhook becomes due with it."""

    async def retry(self, claim: Claim, delay: float, line: LogLine | None = None) -> bool:
        """Put the job back for another attempt in `delay` seconds. A job that is to be cancelled is cancelled instead.

        `line` is added to its log, and says why it waits.
        """

    async def release(self, claim: Claim) -> bool:
        """Hand the job back, in its old place, the attempt not charged. A job to be cancelled is cancelled instead.

        But where that happens more than `lifecycle.FREE_HAND_BACKS` times in a row to attempts shorter than `LONG_ATTEMPT`, the
        attempt is charged, and after the last one the job fails. Its log says that it was handed back.
        """

    def lose(self, claim: Claim, loss: Loss) -> Awaitable[Rescue | None]:
        """The attempt ends this process: treat it as `rescue` would. None when the claim is no longer held."""

    def log(self, claim: Claim, lines: Sequence[LogLine], progress: Progress | None = None) -> Awaitable[bool]:
        """Store the next lines of the job, in order, and how far the attempt is; of reports the last one stays.

        Lines are numbered behind those that are there. The claim that ended the job may still bring its last lines.
        """

    async def held(self) -> Mapping[tuple[int, int], bool]:
        """Key and token → whether it is to be cancelled, of all jobs this owner runs."""

    def renew(self, tokens: Collection[int]) -> int:
        """Extend the leases of those jobs, deliveries and polls of this owner; how many there still were.

        To be called four times in each lease, also without tokens: it is how a process knows that the database is there
        (`lifecycle.Pulse`). Fewer than were named: `Topic.CANCEL` is told. Blocking; called from a thread of its own.
        """

    # --- the janitor's verbs

    async def rescue(self, *, running: Collection[int] = ()) -> list[Rescue]:
        """Take the jobs of lost workers, and their deliveries and polls.

        `running` are the tokens that this process works on; they are renewed first, in the same transaction. What is lost
        then says `lifecycle.IS_LOST`.

        A job fails when it has no attempt left, or when the process that accepted it said `on_crash="fail"`. All others are
        suspects until they have ended or are retried for another reason: each waits for its backoff, and is claimed only
        while no other suspect is queued or running, by any process. Others are claimed beside it. Their logs say why they wait.
        """

    async def expire(self) -> list[Rescue]:
        """Fail waiting jobs whose start deadline has passed, some hundreds at once; none when there are none left."""

    async def prune(self, limit: int) -> int:
        """Delete what is old enough, up to `limit` of each kind, as one short step; 0 when nothing is left to be deleted.

        It returns how many jobs and answers were deleted, or deleted in part: a long one takes several steps. What a pending
        webhook needs is kept.

        Finished jobs older than the retention go with all that is theirs; of short-lived jobs the answers, after
        `lifecycle.SHORT`, or `SHORT_IF_LARGE`. What is known of hosts that no webhook went to for the retention goes too.
        """

    async def counts(self) -> Counts:
        """How many are in each state, and how many of those that are kept ended how. Looks at no ended job."""

    # --- both loops' verb

    async def next_due(self, topic: Topic) -> float | None:
        """Seconds until a delayed job (`WORK`), a webhook (`DELIVERY`) or a poll (`POLL`) is due; None when there is none."""
