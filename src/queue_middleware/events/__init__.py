"""Events: what happened in the queue, as flat frozen values that observers receive.

Durations and waits are in seconds. No event holds a URL, a token or a payload; `docs/reference/events.md` lists all of them.

May import: `jobs` and what lies below it.
Begin with this module; `deliveries` has the events of webhooks, `error_streak` makes those of services that fail for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, Self

from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.models import ErrorType, Failure, JobState, StoredResponse
from queue_middleware.jobs.outcomes import Outcome, outcome_of
from queue_middleware.jobs.struct import Struct

from .deliveries import CircuitClosed as CircuitClosed
from .deliveries import CircuitOpened as CircuitOpened
from .deliveries import Delivered as Delivered
from .deliveries import DeliveryDead as DeliveryDead
from .deliveries import DeliveryFailed as DeliveryFailed


class Started(Struct, frozen=True):
    """The queue runs in this process. `database` is the real path of its file, or the name of its database."""

    database: str
    concurrency: int
    application: str | None = None


class Stopping(Struct, frozen=True):
    """The queue stops, and waits at most `timeout` s for running work. `can_hurry`: a SIGINT ends the wait."""

    requests: int
    webhooks: int
    timeout: float
    can_hurry: bool


class Stopped(Struct, frozen=True):
    """The queue has stopped in this process. `handed_back` requests were running; they run again, here or elsewhere."""

    handed_back: int


class ServiceError(Struct, frozen=True, gc=True):
    """A service of the queue met an unexpected error; it continues after `retry_in` seconds. `where` names the service."""

    where: str
    error: BaseException
    retry_in: float


class Recovered(Struct, frozen=True):
    """A service works again after `failures` errors with the same `where`; the first was `duration` seconds ago."""

    where: str
    failures: int
    duration: float


class KeysChanged(Struct, frozen=True):
    """The file with the signing keys was changed and reloaded; `kid` is the key that signs now."""

    kid: str


class OperatorWarning(Struct, frozen=True):
    """Something that the operator should know. Emitted once for each cause."""

    public: ClassVar[frozenset[str]] = frozenset({"message"})

    message: str


class OperatorNotice(Struct, frozen=True):
    """Something that the operator may want to know and that needs no action."""

    public: ClassVar[frozenset[str]] = frozenset({"message"})

    message: str


class Submitted(Struct, frozen=True):
    """A request was stored. `path` is its percent-encoded path without the query, `route` its template (`jobs.routes`)."""

    request_id: str
    route: str
    path: str


class _AttemptEvent(Struct, frozen=True):
    """An event of one attempt of a request; the first attempt has number 1. `route` as in `Submitted`."""

    request_id: str
    attempt: int
    route: str | None


class AttemptStarted(_AttemptEvent, frozen=True):
    """An attempt begins."""


class AttemptFailed(_AttemptEvent, frozen=True):
    """An attempt failed and is repeated in `retry_in` seconds."""

    error: str
    retry_in: float


class JobAwaiting(_AttemptEvent, frozen=True):
    """The call of a request has returned; the request now waits for a callback, a signal or a poll."""


class TaskProgress(Struct, frozen=True):
    """An external service reported progress of a task. `status` is the status as the service reported it."""

    request_id: str
    status: str | None


class Finished(_AttemptEvent, frozen=True):
    """A request reached its final state, `duration` seconds after the attempt began.

    `attempt` is 0 and `route` is None if no attempt of this process ended the request, e.g. for a callback or a deadline.
    `status` is the HTTP status of the response. Without a response it is None, and `error` is the reason.
    """

    status: int | None
    error: ErrorType | None
    duration: float

    @classmethod
    def of(
        cls, request_id: str, attempt: int, end: StoredResponse | Failure, duration: float, route: str | None = None
    ) -> Self:
        """The event for a request that ended with this response or failure."""
        if isinstance(end, Failure):
            return cls(request_id, attempt, route, None, end.error_type, duration)
        return cls(request_id, attempt, route, end.status, None, duration)

    @property
    def outcome(self) -> Outcome:
        """The class of the outcome: a status class such as `5xx`, or `failed` or `cancelled`."""
        return outcome_of(self.status, self.error)


class ClaimLost(_AttemptEvent, frozen=True):
    """The result of an attempt was discarded, because its lease had expired and another worker owns the request."""


class Rescued(Struct, frozen=True):
    """The worker of a request was lost; `state` is the state of the request from now on. `route` as in `Submitted`."""

    request_id: str
    state: JobState
    route: str


class ApplicationError(_AttemptEvent, frozen=True, gc=True):
    """The application raised an exception during a replay. Clients never see its text or traceback."""

    error: BaseException


class SlotStuck(_AttemptEvent, frozen=True):
    """Code that was asked to stop still occupies a slot after `duration` seconds, e.g. in a thread, which cannot be stopped."""

    duration: float


class Polled(Struct, frozen=True):
    """A provider was polled and has not finished. `status` is the status as it reported it; the next poll is in `next_in` s.

    `provider` is the name of a known provider, None for any other one.
    """

    request_id: str
    number: int
    provider: str | None
    status: str | None
    next_in: float


class PollFailed(Struct, frozen=True):
    """Poll `number` of a provider returned nothing that can be used; it is repeated in `retry_in` seconds."""

    request_id: str
    number: int
    provider: str | None
    error: str
    retry_in: float


class ResultReceived(Struct, frozen=True):
    """An external service delivered the result of a task by `channel`: `callback`, `signal` or `poll`.

    `outcome` says what became of it: `ended`, `deferred` until the running attempt ends, `duplicate` or `too_late`.
    """

    request_id: str
    channel: str
    outcome: str


class Redelivered(Struct, frozen=True):
    """The operator requested `count` webhooks to be delivered again."""

    count: int


class Operated(Struct, frozen=True):
    """An operator has acted, and `count` requests, webhooks or pauses were changed.

    `operator` is the name that was passed to the method; it is `queue` if a pause ended by itself.
    `target` is a request id, a delivery id, a host, a route, or the conditions of a selection as JSON.
    """

    operator: str
    action: Action
    target: str
    count: int


Event = (
    Started | Stopping | Stopped | ServiceError | Recovered | KeysChanged | OperatorWarning | OperatorNotice
    | Submitted | AttemptStarted | AttemptFailed | JobAwaiting | TaskProgress | Finished | ClaimLost | Rescued
    | ApplicationError | SlotStuck | Polled | PollFailed | ResultReceived | Delivered | DeliveryFailed
    | DeliveryDead | CircuitOpened | CircuitClosed | Redelivered | Operated
)  # fmt: skip


class Observer(Protocol):
    """Receives events, in the event loop, so it must be quick; an exception is logged and ignored.

    An observer with an attribute `kinds`, a frozenset of event classes, receives only those; any other receives all events.
    """

    def on_event(self, event: Event) -> None:
        """Handle one event."""


Emit = Callable[[Event], None]
"""Passes an event to all observers."""


def is_observed(emit: Emit, kind: type[Event]) -> bool:
    """Whether events of this kind have to be made. False only if `emit` is known to pass them to no observer."""
    return kind not in getattr(emit, "unobserved", ())
