"""A task's result within JSON: sent in pieces, it is the same text as in one piece."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from queue_middleware.jobs.models import StoredResponse
from queue_middleware.jobs.task_spec import TaskSpec
from queue_middleware.tasks import representation as wire
from queue_middleware.tasks.models import TaskRecord, TaskStatus
from queue_middleware.tasks.results import measure, serialize
from tests.support.factories import make_job_view


def make_record(body: bytes) -> TaskRecord:
    job = make_job_view(status=200, started_at=1_000, finished_at=3_000)
    response = StoredResponse(200, ((b"content-type", b"text/plain"), (b"x-a", b"1"), (b"x-a", b"\xe9")), body)
    spec = TaskSpec(base_url="https://s.example", wait_timeout=30.0, target="/work", method="POST")
    return TaskRecord(job, spec, TaskStatus.COMPLETED, 5, 4, None, None, response=response)


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10**6])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"a": "\\u00e9"}',
        b'\0\x1f\x7f"\\/\n',
        "é€😀\u2028".encode() * 3,
        b"\xff\xfe",
        b"text, and at its end no text \xe2\x82",
        bytes(range(256)) * 3,
        b"x" * 70_000 + "é".encode() * 70_000,
    ],
    ids=str,
)
async def test_the_pieces_are_the_whole_result(body: bytes, size: int) -> None:
    if size < 7 and len(body) > 10_000:
        size = 65_537  # multi-byte characters are cut through
    record = make_record(body)
    spelling = await measure(pieces(body, size), len(body))
    spelled = b"".join([piece async for piece in serialize(pieces(body, size), spelling)])
    assert len(spelled) == spelling.length
    for whole, (before, after) in (
        (wire.task_body(record), wire.split_task_body(record, spelling)),
        (wire.completion_body(record), wire.split_completion_body(record, spelling)),
    ):
        assert json.loads(before + spelled + after) == json.loads(whole)
        assert len(before + spelled + after) == len(whole)


async def test_no_piece_is_long_after_escaping() -> None:
    body = b"\0" * 2**20
    spelling = await measure(pieces(body, 2**18), len(body))
    assert max([len(piece) async for piece in serialize(pieces(body, 2**18), spelling)]) <= 6 * 2**16
