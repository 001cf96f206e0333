"""Passes events to observers."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import get_args

from queue_middleware.events import Event, Observer

_log = logging.getLogger("queue_middleware")


class Emitter:
    """Passes every event to every observer that wants its kind, in order.

    An observer may have an attribute `incidental`: kinds that it receives if they are made for another observer.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        observers = tuple(observers)
        self._by_kind = {
            kind: tuple(o.on_event for o in observers if _wants(o, kind) or kind in getattr(o, "incidental", ()))
            for kind in get_args(Event)
        }
        self.unobserved = frozenset(kind for kind in get_args(Event) if not any(_wants(o, kind) for o in observers))
        """For `events.is_observed`."""

    def __call__(self, event: Event) -> None:
        """Emit an event. An exception of an observer is logged."""
        for on_event in self._by_kind[type(event)]:
            try:
                on_event(event)
            except Exception:
                # A faulty observer, e.g. of metrics, must not stop the work of the queue.
                name = type(event).__name__
                _log.exception("an observer failed to handle the event %s", name, extra={"queue_event": "observer_failed"})


def _wants(observer: Observer, kind: type[Event]) -> bool:
    kinds = getattr(observer, "kinds", None)
    return kinds is None or kind in kinds
