"""Reads what a host outside has to say: whole answers to GET, and only from hosts that tasks may call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

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


class Inquiry:
    """Knows the way out, and which hosts the service's owner allows."""

    def __init__(self, outbound: Outbound, settings: Settings) -> None:
        self._outbound = outbound
        self._hosts = settings.task_targets
        self._largest = settings.max_response_body
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    async def get(self, url: str, headers: Headers) -> StoredResponse:
        """The answer, whatever its status is; a redirect is an answer too. Header names are in lower case.

        Raises `OutboundRefused` for what may not be called, and `OutboundError` where no whole answer of at most
        `max_response_body` came. The caller bounds the time.
        """
        try:
            host = parse_url(url, _NOUN).host
        except InvalidWebhook as error:
            raise OutboundRefused(error.detail) from None
        if not may_call(host, self._hosts):
            raise OutboundRefused(f"the option 'task_targets' does not allow to call {host}")
        async with AsyncExitStack() as stack:
            answer = await stack.enter_async_context(self._outbound.open("GET", url, headers, b"", _PATIENCE, _NOUN))
            return StoredResponse(answer.status, answer.headers, await self._whole(answer.chunks, stack))

    async def _whole(self, chunks: AsyncIterator[bytes], stack: AsyncExitStack) -> bytes:
        """All of it; the larger ones take turns, because each is in memory."""
        body = bytearray()
        async for chunk in chunks:
            if len(body) <= _LARGE < len(body) + len(chunk):
                await stack.enter_async_context(self._large)
            body += chunk
            if len(body) > self._largest:
                raise OutboundError(f"the answer is larger than {self._largest} bytes")
        return bytes(body)
