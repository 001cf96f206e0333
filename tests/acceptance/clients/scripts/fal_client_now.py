"""Actions of users of the current `fal_client`, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import fal_client
from runner import main, open_gate, shown

UNKNOWN = "01936b6e-0000-7000-8000-000000000000"


class Watch:
    """Keeps the updates that differ, and opens the gate at the first log line."""

    def __init__(self, gate: str | None) -> None:
        self.gate = gate
        self.updates: list[Any] = []
        self.ids: list[str] = []

    def __call__(self, status: fal_client.Status) -> None:
        if self.updates[-1:] != [shown(status)]:
            self.updates.append(shown(status))
        if self.gate and isinstance(status, fal_client.InProgress) and status.logs:
            open_gate(self.gate)

    def report(self, result: Any) -> Any:
        return {"id": self.ids[0], "updates": self.updates, "result": result}


def subscribe(app: str, arguments: dict[str, Any], gate: str | None = None, **options: Any) -> Any:
    """Subscribe in one call."""
    watch = Watch(gate)
    return watch.report(
        fal_client.subscribe(app, arguments, with_logs=True, on_enqueue=watch.ids.append, on_queue_update=watch, **options)
    )


async def subscribe_async(app: str, arguments: dict[str, Any], gate: str | None = None, **options: Any) -> Any:
    watch = Watch(gate)
    return watch.report(
        await fal_client.subscribe_async(
            app, arguments, with_logs=True, on_enqueue=watch.ids.append, on_queue_update=watch, **options
        )
    )


def steps(app: str, arguments: dict[str, Any], gate: str, webhook_url: str) -> Any:
    """The same in single steps, with the handle and with the id."""
    handle = fal_client.submit(app, arguments, webhook_url=webhook_url, hint="a-runner")
    for status in handle.iter_events(with_logs=True, interval=0.02):
        if isinstance(status, fal_client.InProgress):
            open_gate(gate)
    return {
        "id": handle.request_id,
        "same": fal_client.SyncClient.get_handle(fal_client.sync_client, app, handle.request_id) == handle,
        "bare": shown(handle.status()),
        "by_id": shown(fal_client.status(app, handle.request_id, with_logs=True)),
        "results": [handle.get(), fal_client.result(app, handle.request_id)],
    }


async def steps_async(app: str, arguments: dict[str, Any], gate: str, webhook_url: str) -> Any:
    handle = await fal_client.submit_async(app, arguments, webhook_url=webhook_url, hint="a-runner")
    async for status in handle.iter_events(with_logs=True, interval=0.02):
        if isinstance(status, fal_client.InProgress):
            open_gate(gate)
    return {
        "id": handle.request_id,
        "same": await fal_client.async_client.get_handle(app, handle.request_id) == handle,
        "bare": shown(await handle.status()),
        "by_id": shown(await fal_client.status_async(app, handle.request_id, with_logs=True)),
        "results": [await handle.get(), await fal_client.result_async(app, handle.request_id)],
    }


def waiting(app: str, gate: str) -> Any:
    """One request runs and three wait: their positions, their order, and the effect of cancelling one."""
    first = started(app, gate)
    low = fal_client.submit(app, {"picture": "low"}, priority="low")
    normal = fal_client.submit(app, {"picture": "normal"})
    gone = fal_client.submit(app, {"picture": "gone"})
    places = [shown(handle.status()) for handle in (low, normal, gone)]
    fal_client.cancel(app, gone.request_id)
    output = {"places": places, "cancelled": shown(gone.status()), "error": refused(gone.get)}
    open_gate(gate)
    return {**output, "results": [first.get(), low.get(), normal.get()]}


def started(app: str, gate: str) -> fal_client.SyncRequestHandle:
    """A running request."""
    handle = fal_client.submit(app, {"picture": "first", "gate": gate})
    for status in handle.iter_events(interval=0.02):
        if isinstance(status, fal_client.InProgress):
            break
    return handle


def cancelling(app: str, gate: str) -> Any:
    """Cancel a running request, a completed one and an unknown one."""
    handle = started(app, gate)
    handle.cancel()
    error = refused(handle.get)
    return {
        "id": handle.request_id,
        "status": shown(handle.status()),
        "error": error,
        "again": refused(handle.cancel),
        "unknown": refused(lambda: fal_client.cancel(app, UNKNOWN)),
    }


async def cancelling_async(app: str, gate: str) -> Any:
    handle = await fal_client.submit_async(app, {"picture": "a cat", "gate": gate})
    async for status in handle.iter_events(interval=0.02):
        if isinstance(status, fal_client.InProgress):
            break
    await fal_client.cancel_async(app, handle.request_id)
    error = await refused_async(handle.get)
    return {
        "id": handle.request_id,
        "status": shown(await handle.status()),
        "error": error,
        "again": await refused_async(handle.cancel),
        "unknown": await refused_async(lambda: fal_client.cancel_async(app, UNKNOWN)),
    }


def failing(app: str, arguments: dict[str, Any]) -> Any:
    """The error of a failed request."""
    handle = fal_client.submit(app, arguments)
    return {"id": handle.request_id, "error": refused(handle.get), "status": shown(handle.status())}


async def failing_async(app: str, arguments: dict[str, Any]) -> Any:
    handle = await fal_client.submit_async(app, arguments)
    return {"id": handle.request_id, "error": await refused_async(handle.get), "status": shown(await handle.status())}


def unknown(app: str) -> Any:
    """The errors for an unknown request."""
    return [refused(lambda: fal_client.status(app, UNKNOWN)), refused(lambda: fal_client.result(app, UNKNOWN))]


def too_late(app: str, gate: str) -> Any:
    """A request with a start deadline while another one is running."""
    first = started(app, gate)
    handle = fal_client.submit(app, {"picture": "late"}, start_timeout=1.05)
    output = {"error": refused(handle.get), "status": shown(handle.status())}
    open_gate(gate)
    return {**output, "first": first.get()}


def impatient(app: str, gate: str) -> Any:
    """A caller that waits for a second and then cancels."""
    try:
        fal_client.subscribe(app, {"picture": "a cat", "gate": gate}, client_timeout=1.05)
    except fal_client.FalClientTimeoutError as timeout:
        request_id = str(timeout.request_id)
        return {"id": request_id, "error": refused(lambda: fal_client.result(app, request_id))}
    raise AssertionError("it should have timed out")


async def impatient_async(app: str, gate: str) -> Any:
    try:
        await fal_client.subscribe_async(app, {"picture": "a cat", "gate": gate}, client_timeout=1.05)
    except fal_client.FalClientTimeoutError as timeout:
        request_id = str(timeout.request_id)
        return {"id": request_id, "error": await refused_async(lambda: fal_client.result_async(app, request_id))}
    raise AssertionError("it should have timed out")


async def many(app: str, count: int) -> Any:
    """Concurrent callers, each of which polls."""
    calls = (fal_client.subscribe_async(app, {"n": n}) for n in range(count))
    return [response["body"]["n"] for response in await asyncio.gather(*calls)]


def refused(call: Callable[[], Any]) -> Any:
    """The error that the call raises."""
    try:
        call()
    except fal_client.FalClientHTTPError as error:
        return as_dict(error)
    raise AssertionError("it should have failed")


async def refused_async(call: Callable[[], Awaitable[Any]]) -> Any:
    try:
        await call()
    except fal_client.FalClientHTTPError as error:
        return as_dict(error)
    raise AssertionError("it should have failed")


def as_dict(error: fal_client.FalClientHTTPError) -> Any:
    names = ("x-fal-request-id", "x-fal-error-type", "x-fal-request-timeout-type")
    headers = {name: error.response_headers[name] for name in names if name in error.response_headers}
    return {"code": error.status_code, "message": error.message, "type": error.error_type, "headers": headers}


if __name__ == "__main__":
    main(globals())
