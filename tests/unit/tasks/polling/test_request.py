"""The headers of polls, and the client that reads whole responses from allowed hosts only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from queue_middleware.errors import OutboundError, OutboundRefused
from queue_middleware.jobs.models import StoredResponse
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.outbound.client import HTTPClient, StreamingResponse
from queue_middleware.outbound.guard import Guard
from queue_middleware.settings import Settings
from queue_middleware.syntax.hosts import Origin, origin_of
from queue_middleware.tasks.polling import request as module
from queue_middleware.tasks.polling.request import PollClient, poll_headers
from queue_middleware.webhooks.formats.user_agent import USER_AGENT
from tests.support.providers import Accepted, Provider, Reply, providing

TARGET = "https://api.example/v1/run?webhook={asyncqueue_callback_url}"
KEY = (b"authorization", b"Bearer secret")
TASK_HEADERS = (
    KEY,
    (b"x-runway-version", b"2024-11-06"),
    (b"content-type", b"application/json"),
    (b"content-length", b"12"),
    (b"host", b"api.example"),
    (b"prefer", b"wait"),
    (b"if-match", b"x"),
    (b"x-callback", b"{asyncqueue_callback_url}"),
)


class Scripted(Accepted):
    """Responds to each poll with the next of its replies."""

    def __init__(self, *replies: Reply) -> None:
        super().__init__()
        self.interruptions.extend(replies)

    def check_key(self, call: Any) -> None:
        pass


@asynccontextmanager
async def polling(provider: Provider, **options: Any) -> AsyncIterator[PollClient]:
    settings = Settings(**{"task_targets": ("127.0.0.1",), **options})
    async with providing(provider), HTTPClient(Guard(["127.0.0.1"])) as outbound:
        yield PollClient(outbound, settings)


async def test_a_response_is_read_whole_whatever_its_status():
    body = bytes(range(256)) * 1000
    provider = Scripted(Reply(500, body, [("x-own", "1")]), Reply(302, b"", [("location", "/elsewhere")]))
    async with polling(provider) as client:
        first = await client.get(f"{provider.url}/a?b=c", ((b"x-asked", b"1"),))
        second = await client.get(provider.url, ())
    assert (first.status, first.body, dict(first.headers)[b"x-own"]) == (500, body, b"1")
    assert (second.status, dict(second.headers)[b"location"]) == (302, b"/elsewhere")
    call = provider.calls[0]
    assert (call.method, call.target, call.headers["x-asked"], call.body) == ("GET", "/a?b=c", "1", b"")
    assert len(provider.calls) == 2


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://localhost:9/", "localhost is not in task_targets"),
        ("https://example.com/", "example.com is not in task_targets"),
        ("https://me@127.0.0.1/", "user name"),
        ("ftp://127.0.0.1/", "must begin with https://"),
        ("no url", "must begin with https://"),
    ],
)
async def test_hosts_that_are_not_allowed_are_refused(url: str, reason: str):
    async with polling(Scripted()) as client:
        with pytest.raises(OutboundRefused, match=reason):
            await client.get(url, ())


async def test_the_guard_refuses_private_addresses_too():
    async with HTTPClient(Guard()) as outbound:
        with pytest.raises(OutboundRefused, match="not a public address"):
            await PollClient(outbound, Settings(task_targets=("127.0.0.1",))).get("https://127.0.0.1/", ())


@pytest.mark.parametrize("sends", [True, False])
async def test_no_trace_is_sent_without_trace_outbound(sends: bool):
    provider = Scripted(Reply(200))
    async with polling(provider, trace_outbound=sends) as client:
        await client.get(provider.url, ((b"traceparent", b"00-1"), (b"tracestate", b"a=1"), (b"x-own", b"1")))
    sent = provider.calls[0].headers
    assert ("traceparent" in sent, "tracestate" in sent, "x-own" in sent) == (sends, sends, True)


async def test_a_response_above_the_limit_is_refused():
    provider = Scripted(Reply(200, b"x" * 101), Reply(200, b"x" * 100))
    async with polling(provider, max_response_body=100) as client:
        with pytest.raises(OutboundError, match="larger than 100 bytes"):
            await client.get(provider.url, ())
        assert (await client.get(provider.url, ())).body == b"x" * 100


async def test_large_responses_are_limited_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_LARGE", 10)
    monkeypatch.setattr(module, "_LARGE_AT_ONCE", 1)
    provider = Scripted(*[Reply(200, b"x" * 5000)] * 6)
    async with polling(provider) as client:
        responses: list[StoredResponse] = await asyncio.gather(*(client.get(provider.url, ()) for _ in range(6)))
    assert [len(response.body) for response in responses] == [5000] * 6


class TrickleOutbound:
    """Replaces `Outbound` with large responses; the rest of a slow one arrives once `released` is set."""

    def __init__(self) -> None:
        self.released, self.requested = asyncio.Event(), asyncio.Semaphore(0)

    @asynccontextmanager
    async def stream(self, method: str, url: str, *_: Any) -> AsyncIterator[StreamingResponse]:
        yield StreamingResponse(200, (), self._chunks(slow="slow" in url))

    async def _chunks(self, slow: bool) -> AsyncIterator[bytes]:
        yield b"x" * (module._LARGE + 1)
        self.requested.release()
        if slow:
            await self.released.wait()
        yield b"y"


async def test_large_responses_of_one_provider_leave_a_place_to_others(monkeypatch):
    monkeypatch.setattr(module, "_STEP_WITHIN", 60.0)
    wire = TrickleOutbound()
    client = PollClient(wire, Settings(task_targets=("slow.example", "quick.example")))  # type: ignore[arg-type]
    slow = [asyncio.create_task(client.get(f"https://slow.example/{number}", ())) for number in range(5)]
    await wire.requested.acquire()
    async with asyncio.timeout(5):
        assert (await client.get("https://quick.example/", ())).body.endswith(b"xy")
        assert not any(task.done() for task in slow)
        wire.released.set()
        assert len(await asyncio.gather(*slow)) == 5
    assert not client._large_responses._hosts, "nothing is kept about hosts after their polls"


async def test_a_slow_large_response_loses_its_place(monkeypatch):
    monkeypatch.setattr(module, "_STEP_WITHIN", 0.01)
    client = PollClient(TrickleOutbound(), Settings(task_targets=("slow.example",)))  # type: ignore[arg-type]
    for _ in range(3):
        with pytest.raises(OutboundError, match="slower than"):
            await client.get("https://slow.example/", ())


# --- headers


def config(template="{startResult.body.url}", **changes) -> PollConfig:
    return PollConfig(template, "status", ("done",), (), **changes)


def test_task_headers_go_to_the_target_without_those_about_the_body():
    headers = poll_headers(config(), TARGET, TASK_HEADERS, "https://api.example:443/status/1")
    assert headers == (
        KEY,
        (b"x-runway-version", b"2024-11-06"),
        (b"accept", b"application/json, */*;q=0.5"),
        (b"user-agent", USER_AGENT.encode()),
        (b"accept-encoding", b"identity"),
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/status",
        "http://api.example/status",
        "https://api.example:8443/status",
        "https://api.example.evil.example/",
        "https://sub.api.example/",
    ],
)
def test_no_credentials_for_a_host_that_only_a_response_names(url):
    assert KEY not in poll_headers(config(), TARGET, TASK_HEADERS, url)


def test_hosts_in_the_submitters_templates_receive_credentials():
    configured = config(
        "https://status.example/x/{startResult.body.id}", result_url_template="https://cdn.example/{startResult.body.id}"
    )
    for url in ("https://status.example/x/1", "https://cdn.example/1", "https://api.example/"):
        assert KEY in poll_headers(configured, TARGET, TASK_HEADERS, url)
    assert KEY not in poll_headers(configured, TARGET, TASK_HEADERS, "https://status.example.evil.example/")


def test_headers_of_a_task_whose_target_is_the_application_are_not_forwarded():
    assert KEY not in poll_headers(config(), "/start", TASK_HEADERS, "https://api.example/")
    assert KEY not in poll_headers(config("/x"), "", TASK_HEADERS, "no-url")


def test_forwarding_can_be_disabled():
    assert KEY not in poll_headers(config(forward_auth=False), TARGET, TASK_HEADERS, "https://api.example/")


def test_configured_headers_take_precedence():
    configured = config(headers={"Accept": "video/mp4", "Authorization": "Key other"})
    headers = poll_headers(configured, TARGET, TASK_HEADERS, "https://api.example/x")
    assert dict(headers)[b"accept"] == b"video/mp4"
    assert [value for name, value in headers if name == b"authorization"] == [b"Key other"]


def test_origins():
    assert origin_of("HTTPS://Api.Example/x") == origin_of("https://api.example.:443") == Origin("https", "api.example", 443)
    assert origin_of("http://[::1]:80/") == Origin("http", "::1", 80)
    assert origin_of("/x") is origin_of("") is origin_of("https://[bad") is origin_of("https://a:99999/") is None
