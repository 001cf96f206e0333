"""The HTTP request of a poll: its headers, and a client that reads whole responses from allowed hosts only."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from queue_middleware.asgi.headers import without_trace
from queue_middleware.errors import InvalidWebhook, OutboundError, OutboundRefused
from queue_middleware.jobs.models import Headers, StoredResponse
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.outbound.client import HTTPClient
from queue_middleware.outbound.guard import parse_url
from queue_middleware.settings import Settings
from queue_middleware.syntax.hosts import Origin, origin_of
from queue_middleware.tasks.target import is_allowed_target
from queue_middleware.webhooks.formats.user_agent import USER_AGENT

_URL_LABEL = "its address"
"""Names the URL in the texts of errors."""
_HEAD_TIMEOUT = 15.0
"""Seconds until the head of a response."""
_LARGE = 2**20
"""Bytes beyond which a response is large."""
_LARGE_AT_ONCE = 2
_STEP = 2**18
_STEP_WITHIN = 2.0
"""Bytes that have to arrive within this many seconds while a response has one of the places for large ones. A large response
that arrives more slowly would not be complete within the time limit of a poll anyway."""

_NOT_FORWARDED = frozenset(
    {
        b"host",
        b"connection",
        b"transfer-encoding",
        b"te",
        b"expect",
        b"prefer",
        b"range",
        b"accept-encoding",
        b"idempotency-key",
    }
)  # fmt: skip
_PLACEHOLDER = b"callback_url}"
_DEFAULTS: Headers = (
    (b"accept", b"application/json, */*;q=0.5"),
    (b"user-agent", USER_AGENT.encode()),
    (b"accept-encoding", b"identity"),
)


def poll_headers(config: PollConfig, target: str, task_headers: Headers, url: str) -> Headers:
    """The headers of a poll of `url`. `target` is the `targetUrl`, `task_headers` are those of the task.

    The task's headers, which hold its API key, are sent to the origin of the `targetUrl` and to origins in the submitter's
    templates, and never to one that only a provider's response names. Headers about the body of the first call are left out.
    """
    configured = {name.lower().encode("ascii"): value.encode("ascii") for name, value in config.headers.items()}
    headers: list[tuple[bytes, bytes]] = []
    if config.forward_auth and is_named(config, target, url):
        headers = [pair for pair in task_headers if _is_forwarded(*pair) and pair[0] not in configured]
    present = configured.keys() | {name for name, _ in headers}
    return (*headers, *configured.items(), *(pair for pair in _DEFAULTS if pair[0] not in present))


def is_named(config: PollConfig, target: str, url: str) -> bool:
    """Whether the submitter has named the origin of the URL, as `targetUrl` or in a template; otherwise a response did."""
    return origin_of(url) in _trusted_origins(config, target)


def _trusted_origins(config: PollConfig, target: str) -> set[Origin | None]:
    templates = (config.url_template, config.result_url_template or "")
    written = {origin_of(template) for template in templates if not template.startswith("{")}
    return ({origin_of(target)} | written) - {None}


def _is_forwarded(name: bytes, value: bytes) -> bool:
    return name not in _NOT_FORWARDED and not name.startswith((b"content-", b"if-")) and _PLACEHOLDER not in value


class PollClient:
    """Sends polls to the hosts that the operator allows."""

    def __init__(self, outbound: HTTPClient, settings: Settings) -> None:
        self._outbound = outbound
        self._hosts = settings.task_targets
        self._sends_trace = settings.trace_outbound
        self._max_body = settings.max_response_body
        self._large_responses = _LargeResponseLimiter(_LARGE_AT_ONCE)

    async def get(self, url: str, headers: Headers) -> StoredResponse:
        """Return the response, whatever its status, redirects included. Header names are in lower case.

        Raises `OutboundRefused` for a URL that may not be called, and `OutboundError` if no complete response of at most
        `max_response_body` arrived. The caller limits the time.
        """
        try:
            parsed = parse_url(url, _URL_LABEL)
        except InvalidWebhook as error:
            raise OutboundRefused(error.detail) from None
        if not is_allowed_target(parsed.host, self._hosts):
            raise OutboundRefused(f"{parsed.host} is not in task_targets")
        if not self._sends_trace:
            headers = without_trace(headers)
        async with AsyncExitStack() as stack:
            opened = self._outbound.stream("GET", url, headers, b"", _HEAD_TIMEOUT, _URL_LABEL)
            response = await stack.enter_async_context(opened)
            body = await self._read_body(response.chunks, parsed.netloc, stack)
            return StoredResponse(response.status, response.headers, body)

    async def _read_body(self, chunks: AsyncIterator[bytes], host: bytes, stack: AsyncExitStack) -> bytes:
        """Read all of it. The number of large bodies at once is limited, because each is in memory."""
        body = bytearray()
        async for chunk in chunks:
            body += chunk
            if len(body) > self._max_body:
                raise self._too_large()
            if len(body) > _LARGE:
                await stack.enter_async_context(self._large_responses.acquire(host))
                await self._read_rest(chunks, body)
        return bytes(body)

    async def _read_rest(self, chunks: AsyncIterator[bytes], body: bytearray) -> None:
        """Read the rest of a large body, which must not keep its place by arriving slowly."""
        ended = False
        while not ended:
            wanted = len(body) + _STEP
            try:
                async with asyncio.timeout(_STEP_WITHIN):
                    while len(body) < wanted and not ended:
                        chunk = await anext(chunks, None)
                        ended = chunk is None
                        body += chunk or b""
                        if len(body) > self._max_body:
                            raise self._too_large()
            except TimeoutError:
                raise OutboundError(f"a large response was slower than {_STEP} bytes in {_STEP_WITHIN:g} s") from None

    def _too_large(self) -> OutboundError:
        return OutboundError(f"the response is larger than {self._max_body} bytes")


class _LargeResponseLimiter:
    """Limits large responses to `limit` at once and one for each host, so that one provider leaves room for the others."""

    def __init__(self, limit: int) -> None:
        self._places = asyncio.Semaphore(limit)
        self._hosts: defaultdict[bytes, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._users = Counter[bytes]()

    @asynccontextmanager
    async def acquire(self, host: bytes) -> AsyncIterator[None]:
        """Wait for a place and hold it."""
        self._users[host] += 1
        try:
            # The host's lock first: a response that waits for its own host takes no place from another host.
            async with self._hosts[host], self._places:
                yield
        finally:
            self._users[host] -= 1
            if not self._users[host]:
                del self._users[host], self._hosts[host]
