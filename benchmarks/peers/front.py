"""A minimal HTTP application in front of a peer: `POST /submit`, `GET /result/{job}`, and `GET /stored` for the benchmark."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.apps import respond

from .peer import load_peer

_PEER = load_peer(os.environ["PEER"])


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The application."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["path"] == "/submit":
        job = await _PEER.submit((await _read(receive)).decode())
        await respond(send, b'{"job": "%s"}' % job.encode())
    elif scope["path"] == "/stored":
        await respond(send, b"%d" % await _PEER.stored())
    else:
        result = await _PEER.result(scope["path"].removeprefix("/result/"))
        await respond(send, result.encode() if result is not None else b"null", 200 if result is not None else 202)


async def _lifespan(receive: Any, send: Any) -> None:
    await receive()
    await _PEER.open()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await _PEER.close()
    await send({"type": "lifespan.shutdown.complete"})


async def _read(receive: Any) -> bytes:
    message = await receive()
    body: bytes = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    return body
