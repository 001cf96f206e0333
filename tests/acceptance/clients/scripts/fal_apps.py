"""What users of the `fal` SDK do with applications: `fal.apps`, the same words in 0.12.1 and today."""

from __future__ import annotations

from typing import Any

import httpx
from fal import apps
from told import main, open_gate, shown


def submit(app: str, path: str, arguments: dict[str, Any], gate: str | None = None) -> Any:
    """Submit, look at each event, open the gate at the first line of log, fetch the result."""
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
    """Two requests where one can run: where the second stands, and what its result is before there is one."""
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
    """What an error looks like."""
    handle = apps.submit(app, arguments, path=path)
    return {"error": refused(handle.get), "status": shown(handle.status())}


def cancel(app: str, path: str, gate: str) -> Any:
    """Cancel what is running. 0.12.1 cannot."""
    handle = apps.submit(app, {"picture": "a cat", "gate": gate}, path=path)
    for status in handle.iter_events():
        if isinstance(status, apps.InProgress):
            break
    handle.cancel()
    error = refused(handle.get)
    return {"id": handle.request_id, "status": shown(handle.status()), "error": error}


def refused(call: Any) -> Any:
    """The HTTP error that the call ends with."""
    try:
        call()
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, error.response.json()]
    raise AssertionError("it should have failed")


if __name__ == "__main__":
    main(globals())
