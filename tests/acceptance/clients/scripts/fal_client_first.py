"""Actions of users of `fal_client` 0.1.0, sync and async: it has only submit and the handle."""

from __future__ import annotations

from typing import Any

import fal_client
import httpx
from runner import main, open_gate, shown


def submit(app: str, arguments: dict[str, Any], path: str = "", gate: str | None = None) -> Any:
    """Submit, follow the events, open the gate at the first log line, get the result. It polls without a pause."""
    handle = fal_client.submit(app, arguments, path=path)
    updates: list[Any] = []
    for status in handle.iter_events(with_logs=True):
        follow(status, updates, gate)
    return {"id": handle.request_id, "updates": updates, "bare": shown(handle.status()), "result": handle.get()}


async def submit_async(app: str, arguments: dict[str, Any], path: str = "", gate: str | None = None) -> Any:
    handle = await fal_client.submit_async(app, arguments, path=path)
    updates: list[Any] = []
    async for status in handle.iter_events(with_logs=True):
        follow(status, updates, gate)
    return {"id": handle.request_id, "updates": updates, "bare": shown(await handle.status()), "result": await handle.get()}


def follow(status: fal_client.Status, updates: list[Any], gate: str | None) -> None:
    if updates[-1:] != [shown(status)]:
        updates.append(shown(status))
    if gate and isinstance(status, fal_client.InProgress) and status.logs:
        open_gate(gate)


def waiting(app: str, gate: str) -> Any:
    """Two requests with one slot: the position of the second."""
    first = fal_client.submit(app, {"picture": "first", "gate": gate})
    second = fal_client.submit(app, {"picture": "second"})
    for status in first.iter_events():
        if isinstance(status, fal_client.InProgress):
            break
    place = shown(second.status())
    open_gate(gate)
    return {"place": place, "results": [first.get(), second.get()]}


def failing(app: str, arguments: dict[str, Any]) -> Any:
    """The error of a failed request."""
    handle = fal_client.submit(app, arguments)
    try:
        handle.get()
    except httpx.HTTPStatusError as error:
        return {"code": error.response.status_code, "body": error.response.json(), "status": shown(handle.status())}
    raise AssertionError("it should have failed")


async def failing_async(app: str, arguments: dict[str, Any]) -> Any:
    handle = await fal_client.submit_async(app, arguments)
    try:
        await handle.get()
    except httpx.HTTPStatusError as error:
        return {"code": error.response.status_code, "body": error.response.json(), "status": shown(await handle.status())}
    raise AssertionError("it should have failed")


if __name__ == "__main__":
    main(globals())
