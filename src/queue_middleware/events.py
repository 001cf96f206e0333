"""What happened, as frozen values. Code announces; logging, metrics and tracing listen."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol, get_args

from .ends import Outcome, outcome_of
from .models import Failure, JobState, StoredResponse
from .value import Value
from .webhooks import Attempt, Delivery

_log = logging.getLogger("queue_middleware")


class Started(Value, frozen=True):
    """The queue is running in this process. `database` is the real path of its file."""

    database: str
    concurrency: int
    application: str | None = None


class Stopping(Value, frozen=True):
    """The queue was told to stop and waits, `seconds` at most, for `requests` that run and `webhooks` that are being sent.

    `can_hurry`: an interrupt (SIGINT, Ctrl-C) from now on ends the wait at once.
    """

    requests: int
    webhooks: int
    seconds: float
    can_hurry: bool


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
    """A request reached its end, in this attempt; 0 where it was never begun. `seconds` of the attempt.

    `ended_as` is the class of its outcome: a status class such as `5xx`, `failed` or `cancelled`.
    """

    request_id: str
    attempt: int
    outcome: StoredResponse | Failure
    seconds: float

    @property
    def ended_as(self) -> Outcome:
        """See `ends.Outcome`."""
        return outcome_of(self.outcome)


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
    """Webhooks to a host have failed so often in a row that it is left alone, but for a probe in `pause` seconds and so on.

    Where `submitter` is not None, only those of this one are (`models.NewJob.client`); others go on.
    """

    host: str
    pause: float
    submitter: str | None = None


class CircuitClosed(Value, frozen=True):
    """A host that was left alone has answered; what waited for it is sent. `submitter` as in `CircuitOpened`."""

    host: str
    submitter: str | None = None


class Redelivered(Value, frozen=True):
    """Somebody asked for webhooks to be delivered again."""

    count: int


class Outage(Value, frozen=True, gc=True):
    """A loop met an error it did not expect; it goes on after a pause of `pause` seconds."""

    where: str
    error: BaseException
    pause: float


class Recovered(Value, frozen=True):
    """What had failed works again, after `failures` events `Outage` of the same `where`, the first of them `seconds` ago."""

    where: str
    failures: int
    seconds: float


class KeysChanged(Value, frozen=True):
    """The file with the signing keys was changed and read anew; `kid` is the key that signs now."""

    kid: str


class Warned(Value, frozen=True):
    """Something that its operator should know once."""

    public: ClassVar[frozenset[str]] = frozenset({"message"})

    message: str


class Noted(Value, frozen=True):
    """Something that its operator may know, and that asks for nothing."""

    message: str


Event = (
    Started | Stopping | Stopped | Submitted | AttemptStarted | AttemptFailed | Finished | ClaimLost | Rescued | Raised | Stuck
    | Waiting | NotLast | Polled | PollFailed | Delivered | DeliveryFailed | DeliveryDead | CircuitOpened | CircuitClosed
    | Redelivered | KeysChanged | Outage | Recovered | Warned | Noted
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


class Trouble:
    """Failures in a row of one source: each is announced as an `Outage`, the first success after them as `Recovered`."""

    __slots__ = ("_announce", "_since", "_where", "failures")

    def __init__(self, where: str, announce: Announce) -> None:
        self._where = where
        self._announce = announce
        self._since = 0.0
        self.failures = 0

    def met(self, error: BaseException, pause: float) -> None:
        """It failed, and is tried again in `pause` seconds."""
        if not self.failures:
            self._since = time.monotonic()
        self.failures += 1
        self._announce(Outage(self._where, error, pause))

    def over(self) -> None:
        """It succeeded."""
        if self.failures:
            failures, self.failures = self.failures, 0
            self._announce(Recovered(self._where, failures, time.monotonic() - self._since))


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
