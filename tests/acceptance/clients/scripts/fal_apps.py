"""Actions of users of the `fal` SDK: `fal.apps`, which has the same functions in 0.12.1 and today."""

from __future__ import annotations

from typing import Any

import httpx
from fal import apps
from runner import main, open_gate, shown


def submit(app: str, path: str, arguments: dict[str, Any], gate: str | None = None) -> Any:
    """Submit, follow the events, open the gate at the first log line, fetch the result."""
    if gate:
        arguments["gate"] = gate
    handle = apps.submit(app, arguments, path=path)
    events = []
    for event in handle.iter_events(logs=True):
        if events[-1:] != [shown(event)]:
            events.append(shown(event))
        if gate and isinstance(event, apps.InProgress):
            open_gate(gate)
    return {
        "id": handle.request_id,
        "events": events,
        "last": shown(handle.status(logs=True)),
        "result": handle.fetch_result(),
        "again": handle.get(),
    }


def run(app: str, path: str, arguments: dict[str, Any]) -> Any:
    """Submit and wait, in one call."""
    return apps.run(app, arguments, path=path)


def queued(app: str, path: str, gate: str) -> Any:
    """Two requests with one slot: the position of the second, and the response to an early fetch of its result."""
    first = apps.submit(app, {"picture": "first", "gate": gate}, path=path)
    second = apps.submit(app, {"picture": "second"}, path=path)
    for status in first.iter_events():
        if isinstance(status, apps.InProgress):
            break
    waiting = shown(second.status())
    early = refused(second.fetch_result)
    open_gate(gate)
    return {"waiting": waiting, "early": early, "results": [first.get(), second.get()]}


def failing(app: str, path: str, arguments: dict[str, Any]) -> Any:
    """The error of a failed request."""
    handle = apps.submit(app, arguments, path=path)
    return {"error": refused(handle.get), "status": shown(handle.status())}


def cancel(app: str, path: str, gate: str) -> Any:
    """Cancel a running request, which 0.12.1 cannot do."""
    handle = apps.submit(app, {"picture": "a cat", "gate": gate}, path=path)
    for status in handle.iter_events():
        if isinstance(status, apps.InProgress):
            break
    handle.cancel()
    error = refused(handle.get)
    return {"id": handle.request_id, "status": shown(handle.status()), "error": error}


def refused(call: Any) -> Any:
    """The HTTP error that the call raises."""
    try:
        call()
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, error.response.json()]
    raise AssertionError("it should have failed")


if __name__ == "__main__":
    main(globals())
