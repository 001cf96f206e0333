"""Passes events to observers."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import get_args

from queue_middleware.events import Event, Observer

_log = logging.getLogger("queue_middleware")


class Emitter:
    """Passes every event to every observer that wants its kind, in order."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        observers = tuple(observers)
        self._by_kind = {
            kind: tuple(o.on_event for o in observers if (kinds := getattr(o, "kinds", None)) is None or kind in kinds)
            for kind in get_args(Event)
        }
        self.unobserved = frozenset(kind for kind, receivers in self._by_kind.items() if not receivers)
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
