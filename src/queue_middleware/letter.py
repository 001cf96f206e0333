"""One webhook as it is sent: its headers, signed for this moment, and its body."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from functools import partial

from .aside import aside
from .errors import UnknownRequest
from .http11 import Stream
from .models import PART, Headers, JobState, Result, WebhookKind, identity_of
from .settings import Settings
from .signing import Signer
from .store import Store
from .tasks import TaskRecord
from .webhooks import Delivery
from .wire import asyncqueue, standard, webhook

_OURS: Headers = ((b"content-type", b"application/json"), (b"user-agent", b"queue-middleware"))


class ResultGone(Exception):
    """Retention, or the submitter's wish, has taken what was to be delivered."""


class Scribe:
    """Writes and signs. `clock` gives Unix seconds; receivers refuse what was signed more than 300 s ago.

    A long answer is in memory only while it is signed, one such answer at a time. Sent it is part by part, as it is read, so
    that a receiver who takes it slowly costs no memory.
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
        if response is None or (response.parts == 0 and len(response.body) <= PART):
            return self._signed(delivery, webhook.webhook_body(result), result)
        async with self._large:
            whole = await self._whole(result)
            # Checking and signing megabytes would hold up everything else in this event loop.
            return await aside(self._signed_stream, delivery, whole, result)

    async def _of_task(self, delivery: Delivery, result: Result) -> tuple[Headers, bytes]:
        """What `onCompleteUrl` is told. Its result is a text within JSON, so a long one is in memory while it is sent."""
        try:
            record = await self._store.waiting.record(delivery.request_id)
        except UnknownRequest:
            raise ResultGone from None
        response = record.response
        if response is None or (response.parts == 0 and len(response.body) <= PART):
            return self._signed_task(delivery, result, record)
        if self._most is not None and response.size > self._most:
            where = f"{self._base}/v1/tasks/{delivery.request_id}"
            return self._signed_task(delivery, result, record.replace(response=None), f"Fetch the result from {where}")
        async with self._large:
            whole = await self._whole(result.replace(response=response))
            return await aside(self._signed_task, delivery, result, record.replace(response=whole.response))

    def _signed_task(
        self, delivery: Delivery, result: Result, record: TaskRecord, excuse: str | None = None
    ) -> tuple[Headers, bytes]:
        return self._signed(delivery, asyncqueue.completion_body(record, excuse), result)

    async def _whole(self, result: Result) -> Result:
        """The result with its body in one piece."""
        response = result.response
        assert response is not None  # noqa: S101
        pieces = [piece async for piece in self._parts(result)]
        return result.replace(response=response.replace(body=b"".join(pieces), parts=0))

    async def _parts(self, result: Result) -> AsyncIterator[bytes]:
        response = result.response
        assert response is not None  # noqa: S101
        for number in range(response.parts):
            try:
                yield await self._store.output(result.job.key, number)
            except UnknownRequest:
                raise ResultGone from None
        yield response.body

    def _signed(
        self, delivery: Delivery, body: bytes, result: Result | None = None, identity: str | None = None
    ) -> tuple[Headers, bytes]:
        return self._headers(delivery, hashlib.sha256(body).hexdigest(), body, result, identity), body

    def _signed_stream(self, delivery: Delivery, whole: Result, result: Result) -> tuple[Headers, bytes | Stream]:
        before, payload, after = webhook.webhook_frame(whole)
        body = b"".join((before, payload, after))
        headers = self._headers(delivery, hashlib.sha256(body).hexdigest(), body, result)
        if whole.response is None or payload is not whole.response.body:
            return headers, body  # it is no JSON and not carried, or is carried without its mark
        return headers, Stream(len(body), partial(self._pour, before, result, after))

    async def _pour(self, before: bytes, result: Result, after: bytes) -> AsyncIterator[bytes]:
        yield before
        async for piece in self._parts(result):
            yield piece
        yield after

    def _headers(
        self, delivery: Delivery, digest: str, body: bytes, result: Result | None, identity: str | None = None
    ) -> Headers:
        """`identity` is that of the submitter where there is no result yet."""
        user, timestamp = webhook.user_id(result.job.identity if result else identity), str(int(self._clock()))
        signature = self._signer.sign(webhook.digest_message(delivery.request_id, user, timestamp, digest))
        message = standard.signed_message(delivery.webhook_id, timestamp, body)
        return (
            *_OURS,
            *webhook.webhook_headers(delivery.request_id, user, timestamp, signature),
            *standard.webhook_headers(
                delivery.webhook_id, timestamp, self._signer.sign_each(message), self._signer.codes(message)
            ),
            *(asyncqueue.signature_headers(self._secrets, timestamp, body) if result and result.job.is_task else ()),
        )
