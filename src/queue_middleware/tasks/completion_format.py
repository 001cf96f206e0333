"""The body of a webhook about a finished task (docs/reference/protocols/asyncqueue.md, "Webhooks"), for `webhooks/message`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from queue_middleware.errors import UnknownRequest
from queue_middleware.jobs.chunks import ReadChunk
from queue_middleware.jobs.models import Headers, JobResult, StoredResponse
from queue_middleware.settings import Settings
from queue_middleware.webhooks.body import FramedBody, PrepareBody, ResultExpired, is_long, read_chunks

from . import representation
from .models import TaskRecord
from .results import measure, serialize


class CompletionFormat:
    """What is sent to `onCompleteUrl`. `find` reads a task, `read_chunk` one stored chunk of its result."""

    def __init__(self, find: Callable[[str], Awaitable[TaskRecord]], read_chunk: ReadChunk, settings: Settings) -> None:
        self._find = find
        self._read_chunk = read_chunk
        self._secrets = settings.webhook_secret
        self._max_payload = settings.webhook_max_payload
        self._base_url = f"{settings.public_url or ''}{settings.prefix}"

    async def body(self, result: JobResult) -> bytes | PrepareBody:
        """The task with its result, or with the URL of a long one that is larger than `webhook_max_payload`."""
        try:
            record = await self._find(result.job.request_id)
        except UnknownRequest:
            raise ResultExpired from None
        response = record.response
        if response is None or not is_long(response):
            return representation.completion_body(record)
        if self._max_payload is not None and response.size > self._max_payload:
            url = f"{self._base_url}/v1/tasks/{result.job.request_id}"
            return representation.completion_body(record.replace(response=None), f"Fetch the result from {url}")
        return partial(self._long_body, record, response)

    async def _long_body(self, record: TaskRecord, response: StoredResponse) -> FramedBody:
        """The result is a JSON string within the body, so its serialized length is measured first."""
        chunks = partial(read_chunks, self._read_chunk, record.job.key, response)
        encoding = await measure(chunks(), response.size)
        before, after = representation.split_completion_body(record, encoding)
        return FramedBody(before, lambda: serialize(chunks(), encoding), after, encoding.length)

    def signature(self, timestamp: str) -> CompletionSignature:
        """`X-AsyncQueue-Signature`."""
        return CompletionSignature(self._secrets, timestamp)


class CompletionSignature:
    """`X-AsyncQueue-Signature` of one body: one HMAC for each shared secret, no header without secrets."""

    def __init__(self, secrets: Iterable[str], timestamp: str) -> None:
        self._timestamp = timestamp
        self._macs = representation.signature_macs(secrets, timestamp)

    def update(self, chunk: bytes) -> None:
        """Add the next chunk of the body."""
        for mac in self._macs:
            mac.update(chunk)

    def headers(self) -> Headers:
        """The header, or nothing without secrets."""
        return representation.signature_header(self._macs, self._timestamp)
