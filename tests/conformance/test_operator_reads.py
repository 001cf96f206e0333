"""What operators see of one request."""

from __future__ import annotations

from typing import Any

import pytest

from queue_middleware.errors import BadRequest, NotKept, UnknownRequest
from queue_middleware.jobs.job_detail import JobDetail
from queue_middleware.jobs.models import CHUNK_SIZE, JobState, RetryCause, RetryPolicy, WebhookKind
from queue_middleware.tasks.polling.config import PollConfig
from tests.support.clock import ManualClock
from tests.support.factories import make_job, make_response, make_task

UNKNOWN = "018f3b1e-0000-7000-8000-000000000001"
WEBHOOK = "https://hooks.example.com:8443/in?key=secret"


async def test_a_queued_request_has_what_its_submission_named(store: Any, clock: ManualClock) -> None:
    new = make_job(b"x" * 10, priority=9, webhook=WEBHOOK, start_timeout=60.0, route="/work/{id}", retry=RetryPolicy(7))
    submitted = await store.submit(new)
    found = await store.operations.detail(submitted.request_id)
    assert found == JobDetail(
        job=await store.job(submitted.request_id),
        method="POST",
        route="/work/{id}",
        priority=9,
        max_attempts=7,
        due_at=None,
        start_by=clock() + 60_000,
        webhook_host="hooks.example.com:8443",
        is_cancelling=False,
        process=None,
        request_bytes=10,
        response_bytes=None,
        log_lines=0,
        kept_until=None,
        original=None,
        copies=(),
    )
    assert found.job.position == 0


async def test_a_running_request_names_its_process(store: Any) -> None:
    submitted = await store.submit(make_job(b"x" * (2 * CHUNK_SIZE + 5)))
    await store.claim(1)
    await store.cancel(submitted.request_id)
    found = await store.operations.detail(submitted.request_id)
    assert (found.process, found.is_cancelling, found.request_bytes) == (store.owner, True, 2 * CHUNK_SIZE + 5)


async def test_an_ended_request_has_the_size_of_its_response(store: Any) -> None:
    submitted = await store.submit(make_job())
    (claim,) = await store.claim(1)
    await store.complete(claim, make_response(b"y" * (CHUNK_SIZE + 3)))
    found = await store.operations.detail(submitted.request_id)
    assert (found.job.state, found.request_bytes, found.response_bytes) == (JobState.COMPLETED, None, CHUNK_SIZE + 3)
    assert found.process is None


@pytest.mark.parametrize("read", ["detail", "kept_request"])
async def test_an_unknown_id_is_an_error(store: Any, read: str) -> None:
    with pytest.raises(UnknownRequest):
        await getattr(store.operations, read)(UNKNOWN)
    with pytest.raises(BadRequest):
        await getattr(store.operations, read)("nonsense")


async def test_a_request_that_has_not_ended_is_returned_as_it_was_submitted(store: Any) -> None:
    poll = PollConfig(
        url_template="https://provider.example/{id}",
        status_path="status",
        done_values=("done",),
        fail_values=(),
        interval=5.0,
        max_duration=60.0,
        headers={"authorization": "Bearer secret"},
    )
    new = make_job(
        b"z" * (CHUNK_SIZE + 1),
        priority=9,
        client="id:alice",
        webhook=WEBHOOK,
        webhook_kinds=(WebhookKind.STARTED, WebhookKind.COMPLETED),
        unstored_response=True,
        route="/work",
        retry=RetryPolicy(3, {RetryCause.TIMEOUT: 2}),
        task=make_task(poll=poll),
    )
    submitted = await store.submit(new.replace(start_timeout=60.0))
    kept = await store.operations.kept_request(submitted.request_id)
    assert (kept.job, kept.kept_until) == (new, None)
    await store.claim(1)
    assert (await store.operations.kept_request(submitted.request_id)).job == new


async def test_the_request_of_an_ended_job_is_not_kept(store: Any) -> None:
    submitted = await store.submit(make_job())
    await store.cancel(submitted.request_id)
    with pytest.raises(NotKept, match=submitted.request_id):
        await store.operations.kept_request(submitted.request_id)
