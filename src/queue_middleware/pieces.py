"""A stored answer piece by piece, so that it is never in memory as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from .models import StoredResponse

ReadPart = Callable[[int, int], Awaitable[bytes]]
"""Part number (from 0) of the answer to the job with this key. See `store.Store.output`."""


async def pieces_of(read: ReadPart, key: int, response: StoredResponse) -> AsyncIterator[bytes]:
    """The body of an answer, at most `models.PART` bytes and the length of a callback id at a time.

    Raises `UnknownRequest` when retention has taken it meanwhile.
    """
    for number in range(response.parts):
        yield await read(key, number)
    yield response.body
