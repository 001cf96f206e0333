"""One webhook as it is sent: its headers, signed for this moment, and its body."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial

from .aside import aside
from .errors import UnknownRequest
from .http11 import Stream
from .long_signing import LongSigning
from .models import PART, Headers, JobState, Result, StoredResponse, WebhookKind, identity_of
from .pieces import pieces_of
from .settings import Settings
from .signing import Signer
from .store import Store
from .version import USER_AGENT
from .webhooks import Delivery
from .wire import asyncqueue, standard, webhook
from .wire.taskresults import measure, serialize

_OURS: Headers = ((b"content-type", b"application/json"), (b"user-agent", USER_AGENT.encode()))


class ResultGone(Exception):
    """Retention, or the submitter's wish, has taken what was to be delivered."""


class Scribe:
    """Writes and signs. `clock` gives Unix seconds; receivers refuse what was signed more than 300 s ago.

    A long answer is signed and sent part by part, as it is read, so it costs no memory, however slowly a receiver takes it.
    Long ones are signed one at a time. Only then, and only of a plain request, is one in memory: to see whether it is JSON.
    """

    def __init__(self, store: Store, signer: Signer, settings: Settings, clock: Callable[[], float]) -> None:
        self._store = store
        self._signer = signer
        self._secrets = settings.webhook_secret
        self._most = settings.webhook_max_payload
        self._base = f"{settings.public_url or ''}{settings.prefix}"
        self._clock = clock
        self._large = asyncio.Semaphore(1)

    async def write(self, delivery: Delivery, result: Result | None) -> tuple[Headers, bytes | Stream]:
        """Headers and body. Raises `ResultGone`."""
        if delivery.kind is not WebhookKind.COMPLETED:
            data = json.loads(delivery.data or "{}")
            body = webhook.news_body(delivery.kind, delivery.request_id, delivery.webhook_id, data)
            return self._signed(delivery, body, identity=identity_of(data.get("client", "")))
        if result is None or (result.response is None and result.job.state is JobState.COMPLETED):
            raise ResultGone
        if result.job.is_task:
            return await self._of_task(delivery, result)
        response = result.response
        if response is not None and self._most is not None and response.size > self._most:
            where = f"{self._base}/requests/{delivery.request_id}/response"
            return self._signed(delivery, webhook.named_body(result, self._most, where), result)
        if response is None or not _is_long(response):
            return self._signed(delivery, webhook.webhook_body(result), result)
        async with self._large:
            return await self._long(delivery, result, response)

    async def _long(self, delivery: Delivery, result: Result, response: StoredResponse) -> tuple[Headers, bytes | Stream]:
        pieces = partial(self._pieces, result.job.key, response)
        body = b"".join([piece async for piece in pieces()])
        before, payload, after = await aside(
            webhook.webhook_frame, result.replace(response=response.replace(body=body, parts=0))
        )
        if payload is not body:  # it is no JSON and not carried, or is carried without its mark
            return self._signed(delivery, b"".join((before, payload, after)), result)
        del body, payload
        return await self._signed_stream(delivery, result, Framed(before, pieces, after, response.size))

    async def _of_task(self, delivery: Delivery, result: Result) -> tuple[Headers, bytes | Stream]:
        """What `onCompleteUrl` is told. Its result is a text within JSON."""
        try:
            record = await self._store.waiting.record(delivery.request_id)
        except UnknownRequest:
            raise ResultGone from None
        response = record.response
        if response is None or not _is_long(response):
            return self._signed(delivery, asyncqueue.completion_body(record), result)
        if self._most is not None and response.size > self._most:
            where = f"{self._base}/v1/tasks/{delivery.request_id}"
            body = asyncqueue.completion_body(record.replace(response=None), f"Fetch the result from {where}")
            return self._signed(delivery, body, result)
        pieces = partial(self._pieces, record.job.key, response)
        async with self._large:
            spelling = await measure(pieces(), response.size)
            before, after = asyncqueue.completion_frame(record, spelling)
            framed = Framed(before, lambda: serialize(pieces(), spelling), after, spelling.length)
            return await self._signed_stream(delivery, result, framed)

    async def _pieces(self, key: int, response: StoredResponse) -> AsyncIterator[bytes]:
        try:
            async for piece in pieces_of(self._store.output, key, response):
                yield piece
        except UnknownRequest:
            raise ResultGone from None

    def _signed(
        self, delivery: Delivery, body: bytes, result: Result | None = None, identity: str | None = None
    ) -> tuple[Headers, bytes]:
        """`identity` is that of the submitter where there is no result yet."""
        timestamp = str(int(self._clock()))
        message = standard.signed_message(delivery.webhook_id, timestamp, body)
        digest, signatures = hashlib.sha256(body).hexdigest(), self._signer.sign_each(message)
        who = result.job.identity if result is not None else identity
        headers = self._headers(delivery, who, timestamp, digest, signatures, self._signer.codes(message))
        is_task = result is not None and result.job.is_task
        return (*headers, *(asyncqueue.signature_headers(self._secrets, timestamp, body) if is_task else ())), body

    async def _signed_stream(self, delivery: Delivery, result: Result, framed: Framed) -> tuple[Headers, Stream]:
        timestamp = str(int(self._clock()))
        signing = LongSigning(self._signer, delivery.webhook_id, timestamp, self._secrets if result.job.is_task else ())
        await signing.read(framed.chunks)
        who = result.job.identity
        headers = self._headers(delivery, who, timestamp, signing.digest, signing.signatures(), signing.codes())
        return (*headers, *signing.own()), Stream(framed.length, framed.chunks)

    def _headers(
        self,
        delivery: Delivery,
        identity: str | None,
        timestamp: str,
        digest: str,
        signatures: Iterable[bytes],
        codes: Iterable[bytes],
    ) -> Headers:
        user = webhook.user_id(identity)
        signature = self._signer.sign(webhook.digest_message(delivery.request_id, user, timestamp, digest))
        return (
            *_OURS,
            *webhook.webhook_headers(delivery.request_id, user, timestamp, signature),
            *standard.webhook_headers(delivery.webhook_id, timestamp, signatures, codes),
        )


class Framed:
    """A body of which only the ends are in memory: what is between them, `length` bytes, is read anew each time."""

    def __init__(self, before: bytes, pieces: Callable[[], AsyncIterator[bytes]], after: bytes, length: int) -> None:
        self._before = before
        self._pieces = pieces
        self._after = after
        self.length = len(before) + length + len(after)

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of it, from the start."""
        yield self._before
        async for piece in self._pieces():
            yield piece
        yield self._after


def _is_long(response: StoredResponse) -> bool:
    return response.parts > 0 or len(response.body) > PART
