"""Reads what a host outside has to say: whole answers to GET, and only from hosts that tasks may call."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from .errors import InvalidWebhook, OutboundError, OutboundRefused
from .guard import parse_url
from .models import Headers, StoredResponse
from .outbound import Outbound
from .settings import Settings
from .target import may_call

_NOUN = "its address"
_PATIENCE = 15.0
"""Seconds until the head of an answer."""
_LARGE = 2**20
_LARGE_AT_ONCE = 2
_STEP = 2**18
_STEP_WITHIN = 2.0
"""Bytes that have to arrive within so many seconds while an answer has one of the places for large ones. A large answer that
comes as slowly as that would not be whole within the time of a question anyway."""


class Inquiry:
    """Knows the way out, and which hosts the service's owner allows."""

    def __init__(self, outbound: Outbound, settings: Settings) -> None:
        self._outbound = outbound
        self._hosts = settings.task_targets
        self._largest = settings.max_response_body
        self._large = _Large(_LARGE_AT_ONCE)

    async def get(self, url: str, headers: Headers) -> StoredResponse:
        """The answer, whatever its status is; a redirect is an answer too. Header names are in lower case.

        Raises `OutboundRefused` for what may not be called, and `OutboundError` where no whole answer of at most
        `max_response_body` came. The caller bounds the time.
        """
        try:
            parsed = parse_url(url, _NOUN)
        except InvalidWebhook as error:
            raise OutboundRefused(error.detail) from None
        if not may_call(parsed.host, self._hosts):
            raise OutboundRefused(f"the option 'task_targets' does not allow to call {parsed.host}")
        async with AsyncExitStack() as stack:
            answer = await stack.enter_async_context(self._outbound.open("GET", url, headers, b"", _PATIENCE, _NOUN))
            return StoredResponse(answer.status, answer.headers, await self._whole(answer.chunks, parsed.netloc, stack))

    async def _whole(self, chunks: AsyncIterator[bytes], host: bytes, stack: AsyncExitStack) -> bytes:
        """All of it; the larger ones take turns, because each is in memory."""
        body = bytearray()
        async for chunk in chunks:
            body += chunk
            if len(body) > self._largest:
                raise self._too_large()
            if len(body) > _LARGE:
                await stack.enter_async_context(self._large.place(host))
                await self._rest(chunks, body)
        return bytes(body)

    async def _rest(self, chunks: AsyncIterator[bytes], body: bytearray) -> None:
        """What is behind the first of a large answer, which must not keep its place by arriving slowly."""
        ended = False
        while not ended:
            wanted = len(body) + _STEP
            try:
                async with asyncio.timeout(_STEP_WITHIN):
                    while len(body) < wanted and not ended:
                        chunk = await anext(chunks, None)
                        ended = chunk is None
                        body += chunk or b""
                        if len(body) > self._largest:
                            raise self._too_large()
            except TimeoutError:
                raise OutboundError(f"a large answer came slower than {_STEP} bytes in {_STEP_WITHIN:g} s") from None

    def _too_large(self) -> OutboundError:
        return OutboundError(f"the answer is larger than {self._largest} bytes")


class _Large:
    """Places for large answers: so many, and one for each host, so that one provider leaves places to the others."""

    def __init__(self, most: int) -> None:
        self._places = asyncio.Semaphore(most)
        self._hosts: defaultdict[bytes, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._wanted = Counter[bytes]()

    @asynccontextmanager
    async def place(self, host: bytes) -> AsyncIterator[None]:
        """Have one, once it is free."""
        self._wanted[host] += 1
        try:
            # That of the host first: who waits for it takes no place from another host.
            async with self._hosts[host], self._places:
                yield
        finally:
            self._wanted[host] -= 1
            if not self._wanted[host]:
                del self._wanted[host], self._hosts[host]
