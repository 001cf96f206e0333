"""Calls of external hosts, in the form of an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from queue_middleware.asgi.scope import SCOPE_KEY
from queue_middleware.errors import OutboundBusy, OutboundShortage
from queue_middleware.outbound.client import StreamingResponse
from queue_middleware.settings import Settings
from queue_middleware.tasks import target as module
from queue_middleware.tasks.target import TargetResolver
from queue_middleware.webhooks.formats.user_agent import USER_AGENT, VERSION
from tests.support.factories import make_request, make_task


class FakeOutbound:
    """Replaces `Outbound`: raises its errors first, then responds."""

    def __init__(self, *shortages: Exception) -> None:
        self.shortages, self.calls = list(shortages), []

    @asynccontextmanager
    async def stream(self, method: str, url: str, headers: Any, *_: Any) -> AsyncIterator[StreamingResponse]:
        self.calls.append((method, url, dict(headers)))
        if self.shortages:
            raise self.shortages.pop(0)
        yield StreamingResponse(200, (), self._body())

    async def _body(self) -> AsyncIterator[bytes]:
        yield b"done"


async def call(outbound: FakeOutbound, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, list[float]]:
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    resolver = TargetResolver(None, outbound, None, Settings(task_targets=("service.example",)))  # type: ignore[arg-type]
    task = make_task(callback=False, is_external=True, target="https://service.example/start?a=b c")
    sent = b""

    async def send(message: Any) -> None:
        nonlocal sent
        sent += message.get("body", b"")

    await resolver.resolve(make_request(), task).app({SCOPE_KEY: "id"}, None, send)
    return sent, delays


@pytest.mark.parametrize("shortage", [OutboundBusy("too many names"), OutboundShortage("Too many open files")])
async def test_a_call_waits_for_a_free_connection(monkeypatch, shortage):
    outbound = FakeOutbound(shortage, shortage, shortage)
    sent, delays = await call(outbound, monkeypatch)
    assert (sent, len(outbound.calls), len(delays)) == (b"done", 4, 3)
    assert all(0 < delay <= 30 for delay in delays)


async def test_the_user_agent_names_the_release(monkeypatch):
    outbound = FakeOutbound()
    await call(outbound, monkeypatch)
    ((_, _, headers),) = outbound.calls
    assert headers[b"user-agent"] == USER_AGENT.encode() == f"queue-middleware/{VERSION}".encode()
    assert VERSION[0].isdigit()
