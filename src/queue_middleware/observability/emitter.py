"""Passes events to observers."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import get_args

from queue_middleware.events import Emit, Event, Observer

_log = logging.getLogger("queue_middleware")


def make_emitter(observers: Iterable[Observer]) -> Emit:
    """A function that passes every event to every observer that wants its kind, in order."""
    observers = tuple(observers)
    by_kind = {
        kind: tuple(o.on_event for o in observers if (kinds := getattr(o, "kinds", None)) is None or kind in kinds)
        for kind in get_args(Event)
    }

    def emit(event: Event) -> None:
        for on_event in by_kind[type(event)]:
            try:
                on_event(event)
            except Exception:
                # A faulty observer, e.g. of metrics, must not stop the work of the queue.
                _log.exception("an observer failed to handle the event %s", type(event).__name__)

    return emit
