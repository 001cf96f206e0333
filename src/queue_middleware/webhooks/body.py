"""Bodies of webhooks about finished requests: whole if they are short, read from the store in chunks if they are long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Protocol

from queue_middleware.background import run_in_thread
from queue_middleware.errors import UnknownRequest
from queue_middleware.jobs.chunks import ReadChunk, iter_chunks
from queue_middleware.jobs.models import CHUNK_SIZE, Headers, JobResult, StoredResponse
from queue_middleware.settings import Settings

from .formats import fal

REQUEST_FORMAT, TASK_FORMAT = "request", "task"
"""Keys of the formats: for requests of fal's routes, and for jobs that were created as tasks."""


class ResultExpired(Exception):
    """The result was deleted before it was delivered, by retention or because the submitter asked not to keep it."""


class FramedBody:
    """A body of which only both ends are in memory. The payload between them, `length` bytes, is read again for each use."""

    def __init__(self, before: bytes, read_payload: Callable[[], AsyncIterator[bytes]], after: bytes, length: int) -> None:
        self._before = before
        self._read_payload = read_payload
        self._after = after
        self.length = len(before) + length + len(after)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The whole body from its start."""
        yield self._before
        async for chunk in self._read_payload():
            yield chunk
        yield self._after


PrepareBody = Callable[[], Awaitable[bytes | FramedBody]]
"""Prepares a long body. Meanwhile the whole body may be in memory. Raises `ResultExpired`."""


class BodySignature(Protocol):
    """A signature that only one format has, computed while the body is read."""

    def update(self, chunk: bytes) -> None:
        """Add the next chunk of the body."""

    def headers(self) -> Headers:
        """The headers with the signature of what was added."""


class BodyFormat(Protocol):
    """How a finished request is represented in the body of a webhook."""

    async def body(self, result: JobResult) -> bytes | PrepareBody:
        """The body, or for a long one the function that prepares it. Raises `ResultExpired`."""

    def signature(self, timestamp: str) -> BodySignature | None:
        """For a webhook that is signed now, `timestamp` in Unix seconds; None if the format has no signature of its own."""


class RequestFormat:
    """fal's envelope around the application's response. `read_chunk` reads one stored chunk of it."""

    def __init__(self, read_chunk: ReadChunk, settings: Settings) -> None:
        self._read_chunk = read_chunk
        self._max_payload = settings.webhook_max_payload
        self._base_url = f"{settings.public_url or ''}{settings.prefix}"

    async def body(self, result: JobResult) -> bytes | PrepareBody:
        """The envelope with the response, or with the URL of one that is larger than `webhook_max_payload`."""
        response = result.response
        if response is not None and self._max_payload is not None and response.size > self._max_payload:
            url = f"{self._base_url}/requests/{result.job.request_id}/response"
            return fal.oversized_body(result, self._max_payload, url)
        if response is None or not is_long(response):
            return fal.webhook_body(result)
        return partial(self._long_body, result, response)

    async def _long_body(self, result: JobResult, response: StoredResponse) -> bytes | FramedBody:
        chunks = partial(read_chunks, self._read_chunk, result.job.key, response)
        body = b"".join([chunk async for chunk in chunks()])
        before, payload, after = await run_in_thread(
            fal.split_body, result.replace(response=response.replace(body=body, chunks=0))
        )
        if payload is not body:  # not JSON, so it is not included, or included without its byte order mark
            return b"".join((before, payload, after))
        return FramedBody(before, chunks, after, response.size)

    def signature(self, timestamp: str) -> None:
        """Fal's signature is in the headers of every webhook."""


def is_long(response: StoredResponse) -> bool:
    """Whether a response is read in chunks instead of being held in memory."""
    return response.chunks > 0 or len(response.body) > CHUNK_SIZE


async def read_chunks(read_chunk: ReadChunk, key: int, response: StoredResponse) -> AsyncIterator[bytes]:
    """The chunks of a stored response. Raises `ResultExpired` when it is deleted meanwhile."""
    try:
        async for chunk in iter_chunks(read_chunk, key, response):
            yield chunk
    except UnknownRequest:
        raise ResultExpired from None
