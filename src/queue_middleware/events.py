"""What happened, as frozen values. Code announces; logging, metrics and tracing listen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from .models import Attempt, Delivery, JobState


@dataclass(frozen=True, slots=True)
class Started:
    """The queue is running in this process."""

    database: str
    concurrency: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The queue has stopped in this process. `handed_back` requests go on in another or after the restart."""

    handed_back: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """A request was stored."""

    request_id: str
    path: str


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """An attempt begins."""

    request_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt ended and will be repeated in `delay` seconds."""

    request_id: str
    attempt: int
    reason: str
    delay: float


@dataclass(frozen=True, slots=True)
class Finished:
    """A request reached its end. `status` is the application's; None where there is none."""

    request_id: str
    state: JobState
    attempt: int
    status: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class ClaimLost:
    """An attempt of this process does not count: its lease ran out and somebody else took the request."""

    request_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Rescued:
    """The worker of this request was lost; `state` is what became of it."""

    request_id: str
    state: JobState


@dataclass(frozen=True, slots=True)
class Raised:
    """The application raised during a replay. The traceback goes to the log and nowhere else."""

    request_id: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class Stuck:
    """A slot is still taken by code that was told to stop, e.g. a thread, which cannot be killed."""

    request_id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Delivered:
    """A webhook was accepted by its receiver."""

    delivery: Delivery
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class DeliveryFailed:
    """An attempt to deliver failed. `next_in` is the wait before the next, None when there is none."""

    delivery: Delivery
    attempt: Attempt
    next_in: float | None


@dataclass(frozen=True, slots=True)
class Outage:
    """A loop met an error it did not expect; it goes on after a pause of `pause` seconds."""

    where: str
    error: BaseException
    pause: float


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that its operator should know once."""

    message: str


Event = (
    Started | Stopped | Submitted | AttemptStarted | AttemptFailed | Finished | ClaimLost | Rescued | Raised | Stuck
    | Delivered | DeliveryFailed | Outage | Warned
)  # fmt: skip


class Observer(Protocol):
    """Somebody who listens. Called in the event loop: it must be quick and must not raise."""

    def on_event(self, event: Event) -> None:
        """One thing that happened."""


Announce = Callable[[Event], None]
"""Tells whoever listens."""


def announce_to(observers: Iterable[Observer]) -> Announce:
    """Hands every event to every observer, in order."""
    listening = tuple(observers)

    def announce(event: Event) -> None:
        for observer in listening:
            observer.on_event(event)

    return announce
