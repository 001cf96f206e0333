"""Streams a stored response chunk by chunk, so that it is never in memory as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from .models import StoredResponse

ReadChunk = Callable[[int, int], Awaitable[bytes]]
"""Reads chunk number (from 0) of the response to the job with this key, as `JobStore.response_chunk` does."""


async def iter_chunks(read: ReadChunk, key: int, response: StoredResponse) -> AsyncIterator[bytes]:
    """The body of a response, at most `models.CHUNK_SIZE` bytes and the length of a callback id at a time.

    Raises `UnknownRequest` when retention has deleted it meanwhile.
    """
    for number in range(response.chunks):
        yield await read(key, number)
    yield response.body
