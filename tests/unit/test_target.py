"""Calls of hosts outside, in the form of an application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from queue_middleware import target as module
from queue_middleware.errors import OutboundBusy, OutboundShortage
from queue_middleware.outbound import Opened
from queue_middleware.target import Targets
from queue_middleware.version import USER_AGENT, VERSION
from tests.nouns import a_request, a_task


class Wire:
    """In place of `Outbound`: cannot call a few times, then answers."""

    def __init__(self, *lacks: Exception) -> None:
        self.lacks, self.calls = list(lacks), []

    @asynccontextmanager
    async def open(self, method: str, url: str, headers: Any, *_: Any) -> AsyncIterator[Opened]:
        self.calls.append((method, url, dict(headers)))
        if self.lacks:
            raise self.lacks.pop(0)
        yield Opened(200, (), self._body())

    async def _body(self) -> AsyncIterator[bytes]:
        yield b"done"


async def call(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, list[float]]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    settings: Any = type("Settings", (), {"task_targets": ("service.example",), "proxy_headers": ()})()
    targets = Targets(None, wire, None, settings)  # type: ignore[arg-type]
    task = a_task(callback=False, outside=True, target="https://service.example/start?a=b c")
    sent = b""

    async def send(message: Any) -> None:
        nonlocal sent
        sent += message.get("body", b"")

    await targets.aim(a_request(), task).app({}, None, send)
    return sent, waits


@pytest.mark.parametrize("lack", [OutboundBusy("too many names"), OutboundShortage("Too many open files")])
async def test_a_call_that_cannot_be_made_waits_and_the_attempt_goes_on(monkeypatch, lack):
    wire = Wire(lack, lack, lack)
    sent, waits = await call(wire, monkeypatch)
    assert (sent, len(wire.calls), len(waits)) == (b"done", 4, 3)
    assert all(0 < wait <= 30 for wait in waits)


async def test_it_says_which_release_calls(monkeypatch):
    wire = Wire()
    await call(wire, monkeypatch)
    ((_, _, headers),) = wire.calls
    assert headers[b"user-agent"] == USER_AGENT.encode() == f"queue-middleware/{VERSION}".encode()
    assert VERSION[0].isdigit()
