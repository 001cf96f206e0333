"""What happened, as frozen values. Code announces; logging, metrics and tracing listen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol, get_args

from .models import Failure, JobState, StoredResponse
from .value import Value
from .webhooks import Attempt, Delivery

_log = logging.getLogger("queue_middleware")


class Started(Value, frozen=True):
    """The queue is running in this process."""

    database: str
    concurrency: int


class Stopped(Value, frozen=True):
    """The queue has stopped in this process. `handed_back` requests go on in another or after the restart."""

    handed_back: int


class Submitted(Value, frozen=True):
    """A request was stored."""

    request_id: str
    path: str


class AttemptStarted(Value, frozen=True):
    """An attempt begins."""

    request_id: str
    attempt: int


class AttemptFailed(Value, frozen=True):
    """An attempt ended and will be repeated in `delay` seconds."""

    request_id: str
    attempt: int
    reason: str
    delay: float


class Finished(Value, frozen=True):
    """A request reached its end, in this attempt; 0 where it was never begun. `seconds` of the attempt."""

    request_id: str
    attempt: int
    outcome: StoredResponse | Failure
    seconds: float


class Waiting(Value, frozen=True):
    """A request was answered, and now waits for a callback, a signal or a poll."""

    request_id: str
    attempt: int


class NotLast(Value, frozen=True):
    """Somebody outside has said how far he is with a request. `status` is his word for it."""

    request_id: str
    status: str | None


class ClaimLost(Value, frozen=True):
    """An attempt of this process does not count: its lease ran out and somebody else took the request."""

    request_id: str
    attempt: int


class Rescued(Value, frozen=True):
    """The worker of this request was lost; `state` is what became of it."""

    request_id: str
    state: JobState


class Raised(Value, frozen=True, gc=True):
    """The application raised during a replay. The traceback goes to the log and nowhere else."""

    request_id: str
    error: BaseException


class Stuck(Value, frozen=True):
    """A slot is still taken by code that was told to stop, e.g. a thread, which cannot be killed."""

    request_id: str
    seconds: float


class Delivered(Value, frozen=True):
    """A webhook was accepted by its receiver."""

    delivery: Delivery
    attempt: Attempt


class DeliveryFailed(Value, frozen=True):
    """An attempt to deliver failed. `next_in` is the wait before the next, None when there is none."""

    delivery: Delivery
    attempt: Attempt
    next_in: float | None


class Polled(Value, frozen=True):
    """A provider was asked and is not done; `status` is his word for it. He is asked again in `wait` seconds."""

    request_id: str
    number: int
    status: str | None
    wait: float


class PollFailed(Value, frozen=True):
    """Question `number` to a provider came to nothing, so nothing is known; it is asked again in `wait` seconds."""

    request_id: str
    number: int
    reason: str
    wait: float


class DeliveryDead(Value, frozen=True):
    """A webhook was given up. It is kept, and can be delivered again. `reason` is what went wrong last."""

    delivery: Delivery
    reason: str


class CircuitOpened(Value, frozen=True):
    """A host has failed so often in a row that it is left alone, but for a probe in `pause` seconds and now and then."""

    host: str
    pause: float


class CircuitClosed(Value, frozen=True):
    """A host that was left alone has answered; what waited for it is sent."""

    host: str


class Redelivered(Value, frozen=True):
    """Somebody asked for webhooks to be delivered again."""

    count: int


class Outage(Value, frozen=True, gc=True):
    """A loop met an error it did not expect; it goes on after a pause of `pause` seconds."""

    where: str
    error: BaseException
    pause: float


class KeysChanged(Value, frozen=True):
    """The file with the signing keys was changed and read anew; `kid` is the key that signs now."""

    kid: str


class Warned(Value, frozen=True):
    """Something that its operator should know once."""

    public: ClassVar[frozenset[str]] = frozenset({"message"})

    message: str


Event = (
    Started | Stopped | Submitted | AttemptStarted | AttemptFailed | Finished | ClaimLost | Rescued | Raised | Stuck
    | Waiting | NotLast | Polled | PollFailed | Delivered | DeliveryFailed | DeliveryDead | CircuitOpened | CircuitClosed
    | Redelivered | KeysChanged | Outage | Warned
)  # fmt: skip


class Observer(Protocol):
    """Somebody who listens. Called in the event loop: it must be quick and must not raise.

    An attribute `kinds`, a frozenset of event classes, limits what it hears; without it, it hears everything.
    """

    def on_event(self, event: Event) -> None:
        """One thing that happened."""


def _wants(observer: Observer, kind: type) -> bool:
    kinds: frozenset[type] | None = getattr(observer, "kinds", None)
    return kinds is None or kind in kinds


Announce = Callable[[Event], None]
"""Tells whoever listens."""


def announce_to(observers: Iterable[Observer]) -> Announce:
    """Hands every event to every observer that wants its kind, in order."""
    observers = tuple(observers)
    listening = {kind: tuple(observer.on_event for observer in observers if _wants(observer, kind)) for kind in get_args(Event)}

    def announce(event: Event) -> None:
        for hear in listening[type(event)]:
            try:
                hear(event)
            except Exception:
                # Somebody's metrics must not cost anybody's work.
                _log.exception("an observer failed to hear of %s", type(event).__name__)

    return announce
