"""The applications that the benchmarks serve. A queue takes its options from the environment (`servers.queue_server`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from queue_middleware import QueueMiddleware

BODY = b'{"prompt": "' + b"x" * 1010 + b'"}'
"""1 KiB, the body of every request here."""


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and responds with it."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    return await respond(send, body)


async def lifespan(receive: Any, send: Any) -> None:
    """Starts and ends without doing anything."""
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


async def respond(send: Any, body: bytes, status: int = 200) -> None:
    """Send a response of JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def endless(scope: Any, receive: Any, send: Any) -> None:
    """Never responds, so that a queue of one slot keeps everything else waiting."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await asyncio.Event().wait()


def gated() -> Callable[[Any, Any, Any], Any]:
    """An application whose handler waits until `POST /open`, and responds with the time at which it returns.

    The time is that of the monotonic clock, which all processes of a machine share.
    """
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        if scope["path"] == "/open":
            gate.set()
            gate.clear()  # what waits now is woken, and what comes later waits
            return await respond(send, b"{}")
        await gate.wait()
        return await respond(send, b"%d" % time.monotonic_ns())

    return app


def queued() -> QueueMiddleware:
    """The bare application with a queue."""
    return QueueMiddleware(bare)


def blocked() -> QueueMiddleware:
    """A queue that runs nothing to its end, and does not wait for it at shutdown."""
    return QueueMiddleware(endless, shutdown_timeout=0)


def gated_queue() -> QueueMiddleware:
    """A queue whose jobs end together when the gate is opened."""
    return QueueMiddleware(gated(), shutdown_timeout=0)
