import asyncio
import base64
import json
from collections.abc import Mapping

import pytest
from nacl.signing import VerifyKey

from queue_middleware.errors import UnknownRequest
from queue_middleware.jobs.models import CHUNK_SIZE, ErrorType, Failure, JobResult, JobState, StoredResponse, WebhookKind
from queue_middleware.outbound.http11 import StreamBody
from queue_middleware.settings import Settings
from queue_middleware.webhooks.body import REQUEST_FORMAT, RequestFormat, ResultExpired
from queue_middleware.webhooks.formats.fal import signed_message
from queue_middleware.webhooks.message import MessageBuilder
from queue_middleware.webhooks.models import DeliveryClaim
from queue_middleware.webhooks.signing.keyring import KeyRing
from queue_middleware.webhooks.signing.keys import KeyPair
from queue_middleware.webhooks.signing.signer import Signer
from tests.support.factories import make_job_view

ID = "018f3b1e-0000-7000-8000-000000000001"
JSON = ((b"content-type", b"application/json"),)
NOW = 1_700_000_000.0
SIGNER = Signer(KeyRing.of(KeyPair.generate()))
DELIVERY = DeliveryClaim(1, 1, "https://a.example/", "a.example", 1, 7, ID)


class Parts:
    """Replaces the store: the chunks of one response."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts
        self.read: list[int] = []

    async def output(self, key: int, number: int) -> bytes:
        assert key == 7
        self.read.append(number)
        if number >= len(self.parts):
            raise UnknownRequest("the result is no longer kept")
        return self.parts[number]


def builder(store: Parts | None = None, **options: object) -> MessageBuilder:
    formats = {REQUEST_FORMAT: RequestFormat((store or Parts()).output, Settings.load(options, {}))}
    return MessageBuilder(SIGNER, formats, lambda: NOW)


def result_of(body: bytes, parts: int = 0, status: int = 200, headers=JSON) -> JobResult:
    job = make_job_view(key=7, request_id=ID, status=status)
    return JobResult(job, StoredResponse(status, headers, body, parts))


def assert_signed(headers: tuple[tuple[bytes, bytes], ...], body: bytes, webhook_id: str = ID) -> None:
    found: Mapping[bytes, bytes] = dict(headers)
    key = VerifyKey(SIGNER.active.public)
    timestamp = found[b"x-fal-webhook-timestamp"].decode()
    assert found[b"x-fal-webhook-request-id"].decode() == ID
    assert found[b"webhook-id"].decode() == webhook_id
    key.verify(signed_message(ID, "anonymous", timestamp, body), bytes.fromhex(found[b"x-fal-webhook-signature"].decode()))
    message = b".".join((found[b"webhook-id"], found[b"webhook-timestamp"], body))
    key.verify(message, base64.b64decode(found[b"webhook-signature"].removeprefix(b"v1a,")))
    assert timestamp == found[b"webhook-timestamp"].decode() == "1700000000"


async def read_all(body: bytes | StreamBody) -> bytes:
    assert isinstance(body, StreamBody)
    whole = b"".join([chunk async for chunk in body.chunks()])
    assert len(whole) == body.length
    return whole


async def test_a_small_result_is_one_signed_body():
    headers, body = await builder().build(DELIVERY, result_of(b'{"a": 1}'))
    assert isinstance(body, bytes)
    assert_signed(headers, body)


@pytest.mark.parametrize("size", [CHUNK_SIZE + 1, 3 * CHUNK_SIZE, 3 * CHUNK_SIZE + 17])
async def test_a_long_result_is_signed_as_a_whole_and_sent_in_chunks(size):
    payload = b'"' + b"x" * (size - 2) + b'"'
    pieces = [payload[start : start + CHUNK_SIZE] for start in range(0, size, CHUNK_SIZE)]
    store = Parts(*pieces[:-1])
    headers, body = await builder(store).build(DELIVERY, result_of(pieces[-1], len(pieces) - 1))
    for _ in range(2):  # a retry on a new connection reads it again
        whole = await read_all(body)
        assert json.loads(whole)["payload"] == json.loads(payload)
        assert_signed(headers, whole)
    assert max(len(chunk) for chunk in [chunk async for chunk in body.chunks()]) <= CHUNK_SIZE


async def test_long_results_are_prepared_one_at_a_time():
    class CountingParts(Parts):
        busy = most = 0

        async def output(self, key: int, number: int) -> bytes:
            self.busy += 1
            self.most = max(self.most, self.busy)
            await asyncio.sleep(0)
            self.busy -= 1
            return await super().output(key, number)

    store = CountingParts(b'"' + b"x" * (CHUNK_SIZE - 1))
    messages = builder(store)
    await asyncio.gather(*(messages.build(DELIVERY, result_of(b'"', 1)) for _ in range(5)))
    assert (len(store.read), store.most) == (5 * 3, 1)  # once to check whether it is JSON, and twice to sign it


async def test_a_long_result_that_is_not_json_is_not_included():
    headers, body = await builder(Parts(b"<" * CHUNK_SIZE)).build(DELIVERY, result_of(b">", 1))
    assert isinstance(body, bytes)
    assert json.loads(body)["payload"] is None
    assert_signed(headers, body)


async def test_a_chunk_that_is_deleted_while_it_is_signed_or_sent():
    with pytest.raises(ResultExpired):
        await builder(Parts()).build(DELIVERY, result_of(b"1]", 1))
    store = Parts(b"[" + b" " * (CHUNK_SIZE - 1))
    _, body = await builder(store).build(DELIVERY, result_of(b"1]", 1))
    store.parts = ()
    with pytest.raises(ResultExpired):
        await read_all(body)


@pytest.mark.parametrize("result", [None, JobResult(result_of(b"").job, None)])
async def test_a_result_that_is_deleted(result):
    with pytest.raises(ResultExpired):
        await builder().build(DELIVERY, result)


async def test_a_failure_is_reported():
    job = make_job_view(JobState.FAILED, key=7, request_id=ID, failure=Failure(ErrorType.REQUEST_TIMEOUT, "too slow"))
    headers, body = await builder(webhook_max_payload=0).build(DELIVERY, JobResult(job, None))
    assert json.loads(body)["payload"]["detail"] == "too slow"
    assert_signed(headers, body)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({}, f"/fal/queue/requests/{ID}/response"),
        ({"public_url": "https://s.example/base", "prefix": "/q"}, f"https://s.example/base/q/requests/{ID}/response"),
    ],
)
async def test_above_the_limit_a_result_is_not_read_and_its_url_is_sent(options, where):
    store = Parts()
    headers, body = await builder(store, webhook_max_payload=CHUNK_SIZE, **options).build(DELIVERY, result_of(b"]", 1))
    sent = json.loads(body)
    assert (sent["payload"], sent["status"]) == (None, "OK")
    assert (
        sent["payload_error"] == f"Response payload has {CHUNK_SIZE + 1} bytes, more than {CHUNK_SIZE}. Fetch it from {where}"
    )
    assert store.read == []
    assert_signed(headers, body)


async def test_at_the_limit_a_result_is_included():
    _, body = await builder(webhook_max_payload=8).build(DELIVERY, result_of(b'{"a": 1}'))
    assert json.loads(body)["payload"] == {"a": 1}


async def test_an_event_has_its_own_id():
    delivery = DELIVERY.replace(kind=WebhookKind.STARTED, number=1, data='{"at": 0}')
    headers, body = await builder().build(delivery, None)
    assert json.loads(body)["type"] == "request.started"
    assert_signed(headers, body, f"{ID}_1")
