"""Prints the timeline of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from queue_middleware.cli.output import Terminal, duration, printable, size, timestamp
from queue_middleware.jobs.struct import Struct
from queue_middleware.jobs.timeline import TimelineEntry, TimelineKind

Value = str | int | float | None


class TimelineRow(Struct, frozen=True):
    """One entry of a timeline."""

    at: str
    kind: TimelineKind
    data: Mapping[str, Value]
    """Depends on the kind, as docs/reference/api.md lists it."""


def timeline_row(entry: TimelineEntry) -> TimelineRow:
    """The entry for JSON."""
    return TimelineRow(timestamp(entry.at), entry.kind, entry.data)


def print_timeline(entries: list[TimelineEntry], terminal: Terminal) -> None:
    """Print one line for each entry."""
    for entry in entries:
        terminal.print(printable(f"{terminal.since(entry.at):14}  {sentence(entry)}"))


def sentence(entry: TimelineEntry) -> str:
    """What the entry reports."""
    return _SENTENCES[entry.kind](entry.data)


def _submitted(data: Mapping[str, Value]) -> str:
    return f"submitted by {data['client']}" + (f", as a copy of {data['original']}" if data["original"] else "")


def _started(data: Mapping[str, Value]) -> str:
    process = f" in process {data['process']}" if data["process"] else ""
    return f"attempt {data['attempt']} started{process}, after waiting {_time(data['waited'])}"


def _attempt_ended(data: Mapping[str, Value]) -> str:
    why = ", ".join(str(data[name]) for name in ("status", "detail") if data[name] is not None)
    ending = str(data["ending"]).replace("_", " ")
    return f"attempt {data['attempt']} {ending} after {_time(data['seconds'])}" + (f": {why}" if why else "")


def _ended(data: Mapping[str, Value]) -> str:
    result = data["status"] if data["error_type"] is None else f"{data['error_type']}: {data['detail']}"
    took = "" if data["seconds"] is None else f" after {_time(data['seconds'])}"
    body = f", {size(int(data['bytes']))}" if data["bytes"] else ""
    return f"{data['state']}{took}" + ("" if result is None else f": {result}{body}")


def _delivery(data: Mapping[str, Value]) -> str:
    result = f"status {data['status']}" if data["error"] is None else data["error"]
    return (
        f"webhook {data['delivery']} ({data['webhook']}) to {data['host']}, attempt {data['attempt']}: {result}, "
        f"{_time(data['seconds'])}"
    )


def _time(seconds: Value) -> str:
    return duration(float(seconds or 0))


_SENTENCES: dict[TimelineKind, Callable[[Mapping[str, Value]], str]] = {
    TimelineKind.SUBMITTED: _submitted,
    TimelineKind.ATTEMPT_STARTED: _started,
    TimelineKind.ATTEMPT_ENDED: _attempt_ended,
    TimelineKind.AWAITING: lambda data: f"awaiting an external service; the call was answered with status {data['status']}",
    TimelineKind.ENDED: _ended,
    TimelineKind.DELIVERY_ATTEMPT: _delivery,
    TimelineKind.COPIED: lambda data: f"submitted again as {data['copy']}",
    TimelineKind.OPERATED: lambda data: f"{data['action']} by {data['operator']}",
}
"""For each kind, the sentence of its data."""
