"""The fields that a log record of an event has beside its text, for logs in JSON and other structured logs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any

from queue_middleware.events import CircuitClosed, CircuitOpened, Event, Polled, TaskProgress

_NAMES = {"duration": "seconds"}
"""Fields of events whose name in a record is another one."""
_OMITTED: Mapping[type[Event], frozenset[str]] = {
    Polled: frozenset({"status"}),  # a text that the provider chose
    TaskProgress: frozenset({"status"}),
    CircuitOpened: frozenset({"submitter"}),  # it may be an account or an address
    CircuitClosed: frozenset({"submitter"}),
}
"""Fields that are in no record; nor is `message`, which is the text itself."""
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def fields_of(event: Event) -> dict[str, object]:
    """The fields for `extra`, which become attributes of the record: `queue_event`, and the event's own fields.

    `queue_event` is the name of the class in lower case, with underscores. Every event of a class has the same fields; those
    that do not apply are None. The field `duration` is called `seconds`. An exception is shown as the name of its class.
    """
    return {
        "queue_event": event_name(type(event)),
        **{name: _plain(getattr(event, field)) for field, name in _names_of(type(event))},
    }


@cache
def event_name(kind: type[Event]) -> str:
    """The value of `queue_event` for this class of events, for example `attempt_failed`."""
    return _CAPITAL.sub("_", kind.__name__).lower()


@cache
def _names_of(kind: type[Event]) -> tuple[tuple[str, str], ...]:
    """The fields of an event, each with its name in the record."""
    omitted = _OMITTED.get(kind, frozenset()) | {"message"}
    return tuple((field, _NAMES.get(field, field)) for field in kind.__struct_fields__ if field not in omitted)


def _plain(value: Any) -> object:
    """The value as every formatter can write it."""
    if isinstance(value, BaseException):
        return type(value).__name__
    return value.value if isinstance(value, Enum) else value
