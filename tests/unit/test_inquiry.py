"""Whole answers of hosts outside, and only of those that may be called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from queue_middleware import inquiry as module
from queue_middleware.errors import OutboundError, OutboundRefused
from queue_middleware.guard import Guard
from queue_middleware.inquiry import Inquiry
from queue_middleware.models import StoredResponse
from queue_middleware.outbound import Opened, Outbound
from queue_middleware.settings import Settings
from tests.fake_providers import Accepted, Provider, Reply, providing


class Says(Accepted):
    """Answers every question with the next of its replies."""

    def __init__(self, *replies: Reply) -> None:
        super().__init__()
        self.interruptions.extend(replies)

    def check_key(self, call: Any) -> None:
        pass


@asynccontextmanager
async def asking(provider: Provider, **options: Any) -> AsyncIterator[Inquiry]:
    settings = Settings(**{"task_targets": ("127.0.0.1",), **options})
    async with providing(provider), Outbound(Guard(["127.0.0.1"])) as outbound:
        yield Inquiry(outbound, settings)


async def test_an_answer_is_read_whole_whatever_it_is():
    body = bytes(range(256)) * 1000
    provider = Says(Reply(500, body, [("x-own", "1")]), Reply(302, b"", [("location", "/elsewhere")]))
    async with asking(provider) as inquiry:
        first = await inquiry.get(f"{provider.url}/a?b=c", ((b"x-asked", b"1"),))
        second = await inquiry.get(provider.url, ())
    assert (first.status, first.body, dict(first.headers)[b"x-own"]) == (500, body, b"1")
    assert (second.status, dict(second.headers)[b"location"]) == (302, b"/elsewhere")
    asked = provider.calls[0]
    assert (asked.method, asked.target, asked.headers["x-asked"], asked.body) == ("GET", "/a?b=c", "1", b"")
    assert len(provider.calls) == 2


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://localhost:9/", "the option 'task_targets' does not allow to call localhost"),
        ("https://example.com/", "the option 'task_targets' does not allow to call example.com"),
        ("https://me@127.0.0.1/", "user name"),
        ("ftp://127.0.0.1/", "must begin with https://"),
        ("no url", "must begin with https://"),
    ],
)
async def test_nobody_else_is_asked(url: str, reason: str):
    async with asking(Says()) as inquiry:
        with pytest.raises(OutboundRefused, match=reason):
            await inquiry.get(url, ())


async def test_the_guard_is_asked_too():
    async with Outbound(Guard()) as outbound:
        with pytest.raises(OutboundRefused, match="not a public address"):
            await Inquiry(outbound, Settings(task_targets=("127.0.0.1",))).get("https://127.0.0.1/", ())


async def test_more_than_the_most_is_not_read():
    provider = Says(Reply(200, b"x" * 101), Reply(200, b"x" * 100))
    async with asking(provider, max_response_body=100) as inquiry:
        with pytest.raises(OutboundError, match="larger than 100 bytes"):
            await inquiry.get(provider.url, ())
        assert (await inquiry.get(provider.url, ())).body == b"x" * 100


async def test_large_answers_take_turns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_LARGE", 10)
    monkeypatch.setattr(module, "_LARGE_AT_ONCE", 1)
    provider = Says(*[Reply(200, b"x" * 5000)] * 6)
    async with asking(provider) as inquiry:
        answers: list[StoredResponse] = await asyncio.gather(*(inquiry.get(provider.url, ()) for _ in range(6)))
    assert [len(answer.body) for answer in answers] == [5000] * 6


class Trickle:
    """In place of `Outbound`: answers that are long, and of which the rest comes when it is let."""

    def __init__(self) -> None:
        self.let, self.asked = asyncio.Event(), asyncio.Semaphore(0)

    @asynccontextmanager
    async def open(self, method: str, url: str, *_: Any) -> AsyncIterator[Opened]:
        yield Opened(200, (), self._chunks(slow="slow" in url))

    async def _chunks(self, slow: bool) -> AsyncIterator[bytes]:
        yield b"x" * (module._LARGE + 1)
        self.asked.release()
        if slow:
            await self.let.wait()
        yield b"y"


async def test_large_answers_of_one_provider_leave_a_place_to_those_of_others(monkeypatch):
    monkeypatch.setattr(module, "_STEP_WITHIN", 60.0)
    wire = Trickle()
    inquiry = Inquiry(wire, Settings(task_targets=("slow.example", "quick.example")))  # type: ignore[arg-type]
    slow = [asyncio.create_task(inquiry.get(f"https://slow.example/{number}", ())) for number in range(5)]
    await wire.asked.acquire()
    async with asyncio.timeout(5):
        assert (await inquiry.get("https://quick.example/", ())).body.endswith(b"xy")
        assert not any(task.done() for task in slow)
        wire.let.set()
        assert len(await asyncio.gather(*slow)) == 5
    assert not inquiry._large._hosts, "nothing is kept of hosts that were asked"


async def test_a_large_answer_that_comes_slowly_gives_its_place_up(monkeypatch):
    monkeypatch.setattr(module, "_STEP_WITHIN", 0.01)
    inquiry = Inquiry(Trickle(), Settings(task_targets=("slow.example",)))  # type: ignore[arg-type]
    for _ in range(3):
        with pytest.raises(OutboundError, match="slower than"):
            await inquiry.get("https://slow.example/", ())
