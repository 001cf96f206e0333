"""Builds the message of a webhook: its body, and its headers with signatures of this moment."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping

from queue_middleware.jobs.models import Headers, JobResult, JobState, WebhookKind, identity_of
from queue_middleware.outbound.http11 import StreamBody

from .body import REQUEST_FORMAT, TASK_FORMAT, BodyFormat, FramedBody, ResultExpired
from .formats import fal, standard
from .formats.user_agent import USER_AGENT
from .long_message import LongMessageSigner
from .models import DeliveryClaim
from .signing.signer import Signer

_COMMON_HEADERS: Headers = ((b"content-type", b"application/json"), (b"user-agent", USER_AGENT.encode()))


class MessageBuilder:
    """Builds and signs. `clock` returns Unix seconds; receivers refuse a message that was signed more than 300 s ago.

    `formats` has one for each kind of job, `body.REQUEST_FORMAT` and `body.TASK_FORMAT`. A long response is signed and sent
    in chunks as it is read from the store, so a slow receiver costs no memory. Long bodies are prepared one at a time,
    because one of `REQUEST_FORMAT` is in memory as a whole while it is checked to be JSON.
    """

    def __init__(self, signer: Signer, formats: Mapping[str, BodyFormat], clock: Callable[[], float]) -> None:
        self._signer = signer
        self._formats = formats
        self._clock = clock
        self._long_bodies = asyncio.Semaphore(1)

    async def build(self, delivery: DeliveryClaim, result: JobResult | None) -> tuple[Headers, bytes | StreamBody]:
        """Headers and body. Raises `ResultExpired`."""
        if delivery.kind is not WebhookKind.COMPLETED:
            return self._event(delivery)
        if result is None or (result.response is None and result.job.state is JobState.COMPLETED):
            raise ResultExpired
        body_format = self._formats[TASK_FORMAT if result.job.is_listed_task else REQUEST_FORMAT]
        body = await body_format.body(result)
        if isinstance(body, bytes):
            return self._sign(delivery, body, result.job.identity, body_format)
        async with self._long_bodies:
            long_body = await body()
            if isinstance(long_body, bytes):
                return self._sign(delivery, long_body, result.job.identity, body_format)
            return await self._sign_stream(delivery, long_body, result.job.identity, body_format)

    def _event(self, delivery: DeliveryClaim) -> tuple[Headers, bytes]:
        data = json.loads(delivery.data or "{}")
        body = fal.event_body(delivery.kind, delivery.request_id, delivery.webhook_id, data)
        return self._sign(delivery, body, identity_of(data.get("client", "")))

    def _sign(
        self, delivery: DeliveryClaim, body: bytes, identity: str | None, body_format: BodyFormat | None = None
    ) -> tuple[Headers, bytes]:
        timestamp = str(int(self._clock()))
        message = standard.signed_message(delivery.webhook_id, timestamp, body)
        digest = hashlib.sha256(body).hexdigest()
        signatures, macs = self._signer.sign_all(message), self._signer.macs(message)
        headers = self._headers(delivery, identity, timestamp, digest, signatures, macs)
        own = body_format.signature(timestamp) if body_format else None
        if own is None:
            return headers, body
        own.update(body)
        return (*headers, *own.headers()), body

    async def _sign_stream(
        self, delivery: DeliveryClaim, body: FramedBody, identity: str | None, body_format: BodyFormat
    ) -> tuple[Headers, StreamBody]:
        timestamp = str(int(self._clock()))
        own = body_format.signature(timestamp)
        signer = LongMessageSigner(self._signer, delivery.webhook_id, timestamp, own)
        await signer.read(body.chunks)
        headers = self._headers(delivery, identity, timestamp, signer.digest, signer.signatures(), signer.macs())
        return (*headers, *(own.headers() if own else ())), StreamBody(body.length, body.chunks)

    def _headers(
        self,
        delivery: DeliveryClaim,
        identity: str | None,
        timestamp: str,
        digest: str,
        signatures: Iterable[bytes],
        macs: Iterable[bytes],
    ) -> Headers:
        user_id = fal.user_id(identity)
        signature = self._signer.sign(fal.digest_message(delivery.request_id, user_id, timestamp, digest))
        return (
            *_COMMON_HEADERS,
            *fal.webhook_headers(delivery.request_id, user_id, timestamp, signature),
            *standard.webhook_headers(delivery.webhook_id, timestamp, signatures, macs),
        )
