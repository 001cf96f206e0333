import hashlib
import hmac
import json
from functools import partial

import pytest

from queue_middleware.errors import UnknownRequest
from queue_middleware.jobs.models import CHUNK_SIZE, JobResult, StoredResponse
from queue_middleware.jobs.task_spec import TaskSpec
from queue_middleware.settings import Settings
from queue_middleware.tasks.completion_format import CompletionFormat
from queue_middleware.tasks.models import TaskRecord, TaskStatus
from queue_middleware.webhooks.body import FramedBody, ResultExpired
from tests.support.factories import make_job_view

ID = "018f3b1e-0000-7000-8000-000000000001"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
JOB = make_job_view(request_id=ID, status=200, is_listed_task=True)


class Tasks:
    """Stands for the store: one task and the chunks of its result."""

    def __init__(self, response: StoredResponse | None, *chunks: bytes) -> None:
        spec = TaskSpec("https://service.example", 30.0, target="/work", method="POST")
        self.record = TaskRecord(JOB, spec, TaskStatus.COMPLETED, 5, 4, None, None, response=response)
        self.chunks = chunks

    async def find(self, request_id: str) -> TaskRecord:
        assert request_id == ID
        return self.record

    async def read(self, key: int, number: int) -> bytes:
        if number >= len(self.chunks):
            raise UnknownRequest("the result is no longer stored")
        return self.chunks[number]

    def format(self, **options: object) -> CompletionFormat:
        return CompletionFormat(self.find, self.read, Settings.load(options, {}))


def response_of(body: bytes, parts: int = 0) -> StoredResponse:
    return StoredResponse(200, ((b"content-type", b"text/plain"),), body, parts)


async def test_a_short_result_is_in_the_body():
    body = await Tasks(response_of(b"done")).format().body(JobResult(JOB, None))
    assert isinstance(body, bytes)
    sent = json.loads(body)
    assert (sent["event"], sent["task"]["id"], sent["task"]["result"]["body"]) == ("task.completed", ID, "done")


async def test_a_long_result_is_framed():
    first, last = "ä".encode() * (CHUNK_SIZE // 2), b"\n."
    body = await Tasks(response_of(last, 1), first).format().body(JobResult(JOB, None))
    assert not isinstance(body, bytes)
    framed = await body()
    assert isinstance(framed, FramedBody)
    for _ in range(2):
        whole = b"".join([chunk async for chunk in framed.chunks()])
        assert len(whole) == framed.length
        assert json.loads(whole)["task"]["result"]["body"] == (first + last).decode()


async def test_an_oversized_result_is_replaced_by_its_url():
    tasks = Tasks(response_of(b".", 1))
    body = await tasks.format(webhook_max_payload=CHUNK_SIZE, public_url="https://s.example", prefix="/q").body(
        JobResult(JOB, None)
    )
    assert isinstance(body, bytes)
    task = json.loads(body)["task"]
    assert (task["result"], task["resultError"]) == (None, f"Fetch the result from https://s.example/q/v1/tasks/{ID}")


async def test_a_task_or_a_chunk_that_is_deleted():
    async def missing(request_id: str) -> TaskRecord:
        raise UnknownRequest("there is no such task")

    tasks = Tasks(response_of(b".", 1))
    with pytest.raises(ResultExpired):
        await CompletionFormat(missing, tasks.read, Settings()).body(JobResult(JOB, None))
    body = await tasks.format().body(JobResult(JOB, None))
    assert isinstance(body, partial)
    with pytest.raises(ResultExpired):
        await body()


def test_the_signature_has_a_mac_for_each_secret_and_covers_all_chunks():
    completion = Tasks(None).format(webhook_secret=SECRET)
    signature = completion.signature("1700000000")
    signature.update(b"one ")
    signature.update(b"two")
    mac = hmac.new(SECRET.encode(), b"1700000000.one two", hashlib.sha256).hexdigest()
    assert signature.headers() == ((b"x-asyncqueue-signature", f"t=1700000000,v1={mac}".encode()),)
    assert Tasks(None).format().signature("1700000000").headers() == ()
