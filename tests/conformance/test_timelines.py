"""What happened to one request: its timeline, and the records of attempts that were not its last one."""

from __future__ import annotations

from typing import Any

import pytest

from queue_middleware.errors import BadRequest, UnknownRequest
from queue_middleware.jobs.attempts import MAX_ATTEMPT_RECORDS
from queue_middleware.jobs.models import ErrorType, Failure, JobState
from queue_middleware.jobs.outcomes import LossReason
from queue_middleware.jobs.timeline import TimelineEntry, TimelineKind
from queue_middleware.tasks.models import CompletionSource
from tests.support.clock import ManualClock
from tests.support.factories import (
    claim_deliveries,
    make_delivery_attempt,
    make_job,
    make_response,
    make_result,
    make_task,
    make_wait,
)

K = TimelineKind
TIMED_OUT = Failure(ErrorType.REQUEST_TIMEOUT, "the attempt took longer than 5 s")


async def of(store: Any, request_id: str, *kinds: TimelineKind) -> list[TimelineEntry]:
    entries = await store.operations.timeline(request_id)
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)
    assert all(entry.data[name] >= 0 for entry in entries for name in ("seconds", "waited") if entry.data.get(name) is not None)
    return [entry for entry in entries if not kinds or entry.kind in kinds]


async def test_a_job_that_succeeds_at_once(store: Any, clock: ManualClock) -> None:
    submitted = await store.submit(make_job(route="/work", client="id:alice"))
    clock.advance(2.0)
    (claim,) = await store.claim(1)
    clock.advance(3.0)
    await store.complete(claim, make_response(b"12345"))
    start, run, end = await of(store, submitted.request_id)
    assert (start.kind, run.kind, end.kind) == (K.SUBMITTED, K.ATTEMPT_STARTED, K.ENDED)
    assert [run.at - start.at, end.at - start.at] == [2000, 5000]
    assert dict(start.data) == {
        "client": "id:alice",
        "method": "POST",
        "route": "/work",
        "priority": 5,
        "bytes": None,
        "original": None,
    }
    assert dict(run.data) == {"attempt": 1, "process": None, "waited": 2.0}
    assert dict(end.data) == {
        "state": "completed",
        "status": 200,
        "error_type": None,
        "detail": None,
        "bytes": 5,
        "seconds": 3.0,
    }


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (make_response(status=503), ("retried", 503, None)),
        (Failure(ErrorType.RUNNER_DISCONNECTED, "gone"), ("retried", None, "gone")),
        (TIMED_OUT, ("timed_out", None, TIMED_OUT.detail)),
        (None, ("retried", None, None)),
    ],
)
async def test_an_attempt_that_is_retried(store: Any, clock: ManualClock, outcome: Any, expected: tuple[Any, ...]) -> None:
    submitted = await store.submit(make_job())
    (claim,) = await store.claim(1)
    clock.advance(1.5)
    await store.retry(claim, 10.0, None, outcome)
    started, ended = await of(store, submitted.request_id, K.ATTEMPT_STARTED, K.ATTEMPT_ENDED)
    data = ended.data
    assert (data["ending"], data["status"], data["detail"], data["attempt"], data["seconds"]) == (*expected, 1, 1.5)
    assert started.data["process"] == store.owner
    clock.advance(10.0)
    await store.claim(1)
    first, _, second = await of(store, submitted.request_id, K.ATTEMPT_STARTED, K.ATTEMPT_ENDED)
    assert [first.data["attempt"], second.data["attempt"], second.data["waited"]] == [1, 2, 10.0]


async def test_a_job_that_is_cancelled_during_its_wait_for_a_retry_has_one_attempt(store: Any, clock: ManualClock) -> None:
    submitted = await store.submit(make_job())
    await store.retry((await store.claim(1))[0], 10.0, None, TIMED_OUT)
    clock.advance(1.0)
    await store.cancel(submitted.request_id)
    kinds = [entry.kind for entry in await of(store, submitted.request_id)]
    assert kinds == [K.SUBMITTED, K.ATTEMPT_STARTED, K.ATTEMPT_ENDED, K.ENDED]


async def test_attempts_that_are_handed_back_or_lost(store: Any, clock: ManualClock) -> None:
    submitted = await store.submit(make_job())
    await store.release((await store.claim(1))[0])
    clock.advance(1.0)
    await store.lose((await store.claim(1))[0], LossReason.EXIT)
    ended = await of(store, submitted.request_id, K.ATTEMPT_ENDED)
    assert [(entry.data["attempt"], entry.data["ending"]) for entry in ended] == [(1, "handed_back"), (1, "lost")]
    assert ended[1].data["detail"] == "the attempt ended the process that ran it"


async def test_only_the_newest_attempts_are_kept(store: Any, clock: ManualClock) -> None:
    submitted = await store.submit(make_job())
    for _ in range(MAX_ATTEMPT_RECORDS + 3):
        (claim,) = await store.claim(1)
        clock.advance(601.0)  # long enough not to be charged
        await store.release(claim)
    ended = await of(store, submitted.request_id, K.ATTEMPT_ENDED)
    assert len(ended) == MAX_ATTEMPT_RECORDS
    assert ended[-1].at == clock()


async def test_a_task_that_awaits_an_external_service(store: Any, clock: ManualClock) -> None:
    task = make_task()
    submitted = await store.submit(make_job(task=task))
    (claim,) = await store.claim(1)
    clock.advance(1.0)
    await store.tasks.complete_attempt(claim, task, make_response(status=202), make_wait())
    clock.advance(4.0)
    await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result())
    _, _, wait, end = await of(store, submitted.request_id)
    assert (wait.kind, dict(wait.data), end.at - wait.at) == (K.AWAITING, {"status": 202}, 4000)
    assert end.data["state"] == JobState.COMPLETED


async def test_attempts_to_deliver_name_the_host_and_never_the_url(store: Any) -> None:
    submitted = await store.submit(make_job(webhook="https://hooks.example.com/in?key=secret"))
    await store.complete((await store.claim(1))[0], make_response())
    (delivery,) = await claim_deliveries(store)
    await store.webhooks.settle(delivery, make_delivery_attempt(500), delivered=False, retry_in=5.0)
    (attempt,) = await of(store, submitted.request_id, K.DELIVERY_ATTEMPT)
    assert dict(attempt.data) == {
        "delivery": delivery.id,
        "webhook": "completed",
        "host": "hooks.example.com",
        "attempt": 1,
        "status": 500,
        "error": None,
        "seconds": 0.1,
    }
    assert "secret" not in repr(await of(store, submitted.request_id))


async def test_a_clock_that_is_set_back_gives_no_negative_times(store: Any, clock: ManualClock) -> None:
    submitted = await store.submit(make_job())
    (claim,) = await store.claim(1)
    clock.set(-30.0)
    await store.retry(claim, 0.0)
    await store.complete((await store.claim(1))[0], make_response())
    kinds = [entry.kind for entry in await of(store, submitted.request_id)]
    assert kinds == [K.SUBMITTED, K.ATTEMPT_STARTED, K.ATTEMPT_ENDED, K.ATTEMPT_STARTED, K.ENDED]


async def test_an_unknown_id_is_an_error(store: Any) -> None:
    with pytest.raises(UnknownRequest):
        await store.operations.timeline("018f3b1e-0000-7000-8000-000000000001")
    with pytest.raises(BadRequest):
        await store.operations.timeline("nonsense")
