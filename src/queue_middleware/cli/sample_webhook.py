"""Sample webhooks: built and signed as the service builds and signs them, with a key of the user."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable

import msgspec

from queue_middleware.jobs.ids import RANDOM_BYTES, SEQUENCE_BITS, format_request_id, make_random_parts
from queue_middleware.jobs.models import (
    ErrorType,
    Failure,
    Headers,
    Job,
    JobResult,
    JobState,
    Progress,
    StoredResponse,
    WebhookKind,
)
from queue_middleware.jobs.struct import Struct
from queue_middleware.settings import Settings
from queue_middleware.webhooks.body import REQUEST_FORMAT, RequestFormat
from queue_middleware.webhooks.message import MessageBuilder
from queue_middleware.webhooks.models import DeliveryClaim
from queue_middleware.webhooks.signing.keyring import KeyRing
from queue_middleware.webhooks.signing.keys import KeyPair, parse_shared_secrets
from queue_middleware.webhooks.signing.signer import Signer

KINDS = ("completed", "failed", "started", "progress")
_FAILURE = Failure(ErrorType.RUNNER_SERVER_ERROR, "the application raised an exception")
_PROGRESS = Progress(0.4, "sample")
_SIGNATURE_PREFIXES = (b"x-fal-webhook-", b"webhook-")


class Sample(Struct, frozen=True):
    """What a sample is about. `data` is the response of the application, or the progress as JSON."""

    kind: str
    request_id: str
    data: bytes | None = None
    status: int = 200


class SampleMessage(Struct, frozen=True):
    """A message that can be sent."""

    webhook_id: str
    headers: Headers
    body: bytes


def new_request_id(now: float) -> str:
    """An id of a request that does not exist. `now` is in Unix seconds."""
    return format_request_id(int(now * 1000) << SEQUENCE_BITS, make_random_parts(secrets.token_bytes(RANDOM_BYTES)))


def build_sample(sample: Sample, pair: KeyPair, shared: list[str], clock: Callable[[], float], *, sign: bool) -> SampleMessage:
    """The message about this sample. Raises `msgspec.DecodeError` for data that is not progress."""
    signer = Signer(KeyRing.of(pair), parse_shared_secrets(shared), clock=clock)
    builder = MessageBuilder(signer, {REQUEST_FORMAT: RequestFormat(_no_chunk, Settings())}, clock)
    delivery = _delivery(sample, int(clock() * 1000))
    headers, body = asyncio.run(_build(builder, delivery, _result(sample)))
    if not sign:
        headers = tuple((name, value) for name, value in headers if not name.startswith(_SIGNATURE_PREFIXES))
    return SampleMessage(delivery.webhook_id, headers, body)


async def _build(builder: MessageBuilder, delivery: DeliveryClaim, result: JobResult) -> tuple[Headers, bytes]:
    headers, body = await builder.build(delivery, result)
    if isinstance(body, bytes):
        return headers, body
    return headers, b"".join([chunk async for chunk in body.chunks()])


async def _no_chunk(key: int, number: int) -> bytes:
    raise AssertionError(f"the response of a sample has no stored chunks, so chunk {number} is never read")


def _delivery(sample: Sample, now: int) -> DeliveryClaim:
    is_end = sample.kind in ("completed", "failed")
    kind = WebhookKind.COMPLETED if is_end else WebhookKind(sample.kind)
    return DeliveryClaim(
        id=1,
        token=1,
        url="",
        host="",
        attempt=1,
        key=1,
        request_id=sample.request_id,
        kind=kind,
        number={WebhookKind.COMPLETED: 0, WebhookKind.STARTED: 1}.get(kind, 2),
        data=None if is_end else json.dumps({"at": now, **_progress(sample)}),
    )


def _progress(sample: Sample) -> dict[str, object]:
    if sample.kind != "progress":
        return {}
    progress = msgspec.json.decode(sample.data, type=Progress) if sample.data else _PROGRESS
    return {"fraction": progress.fraction, "stage": progress.stage}


def _result(sample: Sample) -> JobResult:
    failure = _FAILURE if sample.kind == "failed" else None
    response = StoredResponse(sample.status, ((b"content-type", b"application/json"),), sample.data or b"{}")
    job = Job(
        key=1,
        request_id=sample.request_id,
        state=JobState.FAILED if failure else JobState.COMPLETED,
        attempt=1,
        position=None,
        progress=None,
        created_at=0,
        started_at=0,
        finished_at=0,
        status=None if failure else sample.status,
        failure=failure,
    )
    return JobResult(job, None if failure else response)
