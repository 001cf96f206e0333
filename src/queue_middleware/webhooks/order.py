"""The rules for the order of one request's webhooks, and for when a receiver has its turn.

Stores keep both up to date inside their transactions (SQLite: by triggers); the conformance suite compares. The rules:

* The webhooks of one request are sent in the order in which they were created, never two at once. A new one is blocked while
  an earlier one is blocked, pending or being sent, and becomes pending when the last of those has ended.
* A webhook about an event before the end is not retried once there is a newer one: if it is pending and has failed before, it
  is superseded at once; if it is being sent, it is superseded when that attempt fails. `completed` is never superseded.
* A webhook that others wait for becomes due when the newest of them is due, at the latest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from .models import DeliveryState

UNSENT = frozenset({DeliveryState.BLOCKED, DeliveryState.PENDING, DeliveryState.SENDING})


@dataclass(frozen=True)
class OrderedDelivery:
    """One webhook of a request, as far as its order depends on it."""

    is_event: bool
    """Whether it is about an event before the end; the other kind is `completed`."""
    state: DeliveryState
    due_at: int
    has_failed: bool = False


def add(deliveries: Sequence[OrderedDelivery], is_event: bool, due_at: int) -> tuple[OrderedDelivery, ...]:
    """The webhooks of a request after another one was created."""
    if not any(one.state in UNSENT for one in deliveries):
        return (*deliveries, OrderedDelivery(is_event, DeliveryState.PENDING, due_at))
    earlier = [
        replace(one, due_at=min(one.due_at, due_at)) if one.state in (DeliveryState.BLOCKED, DeliveryState.PENDING) else one
        for one in deliveries
    ]
    earlier = [
        replace(one, state=DeliveryState.SUPERSEDED) if one.state is DeliveryState.PENDING and one.has_failed else one
        for one in earlier
    ]
    return _unblocked((*earlier, OrderedDelivery(is_event, DeliveryState.BLOCKED, due_at)))


def end_attempt(
    deliveries: Sequence[OrderedDelivery], number: int, state: DeliveryState, due_at: int
) -> tuple[OrderedDelivery, ...]:
    """The webhooks of a request after an attempt at one of them: delivered, dead, or pending again until `due_at`."""
    one = deliveries[number]
    is_followed = any(other.state is DeliveryState.BLOCKED for other in deliveries)
    if state is DeliveryState.PENDING and one.is_event and is_followed:
        state = DeliveryState.SUPERSEDED
    ended = replace(one, state=state, due_at=due_at, has_failed=True)
    return _unblocked((*deliveries[:number], ended, *deliveries[number + 1 :]))


def _unblocked(deliveries: tuple[OrderedDelivery, ...]) -> tuple[OrderedDelivery, ...]:
    """The first blocked webhook becomes pending when nothing in front of it is unsent."""
    for number, one in enumerate(deliveries):
        if one.state in (DeliveryState.PENDING, DeliveryState.SENDING):
            break
        if one.state is DeliveryState.BLOCKED:
            return (*deliveries[:number], replace(one, state=DeliveryState.PENDING), *deliveries[number + 1 :])
    return deliveries


def next_at(due: Collection[int], held_until: int | None, turn: int = 0) -> int | None:
    """When a receiver has its next turn: not before its first pending webhook is due, nor while its circuit is open.

    `turn` is when something was last sent to it: it then goes behind the others of its host. None if nothing is pending.
    A store may hold an earlier time than this, which costs a claim in vain, but never a later one.
    """
    return max(min(due), held_until or 0, turn) if due else None
