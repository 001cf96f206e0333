"""Factories of simple values; a test passes the fields that it cares about."""

from __future__ import annotations

import hashlib
from itertools import count
from typing import Any, Protocol

from queue_middleware.jobs.models import Failure, Job, JobState, NewJob, RetryPolicy, StoredRequest, StoredResponse
from queue_middleware.jobs.task_spec import Backoff, Task, TaskSpec
from queue_middleware.tasks.models import ExternalResult, PollCapacity, PollClaim, TaskRecord, TaskStatus, Wait
from queue_middleware.tasks.store import TaskStore
from queue_middleware.webhooks.models import Capacity, DeliveryAttempt, DeliveryClaim
from queue_middleware.webhooks.store import WebhookStore


def make_request(body: bytes = b"{}", **changes: Any) -> StoredRequest:
    request = StoredRequest(
        method="POST",
        root_path="",
        raw_path=b"/work",
        query=b"",
        headers=((b"host", b"testserver"), (b"content-type", b"application/json")),
        client=("192.0.2.7", 4711),
        server=("testserver", 80),
        scheme="http",
        http_version="1.1",
        body=body,
    )
    return request.replace(**changes)


def make_job(body: bytes = b"{}", **changes: Any) -> NewJob:
    return NewJob(make_request(body), client="192.0.2.7", retry=RetryPolicy(3)).replace(**changes)


def make_job_view(state: JobState = JobState.COMPLETED, **changes: Any) -> Job:
    """A job as a client sees it."""
    unknown = dict.fromkeys(("position", "progress", "started_at", "finished_at", "status", "failure"))
    given = {"key": 1, "request_id": "018f3b1e-0000-7000-8000-000000000001", "attempt": 1, "created_at": 0}
    return Job(state=state, **{**given, **unknown, **changes})


def make_response(body: bytes = b'{"ok": true}', status: int = 200, **changes: Any) -> StoredResponse:
    return StoredResponse(status, ((b"content-type", b"application/json"),), body).replace(**changes)


_numbers = count()


def make_task(listed: bool = True, **spec: Any) -> Task:
    """A task with unique tokens."""
    seed = b"%d" % next(_numbers)
    given = {
        "base_url": "https://service.test/fal/queue",
        "wait_timeout": 30.0,
        "callback": True,
        "target": "/work",
        "method": "POST",
    }
    return Task(
        spec=TaskSpec(**{**given, **spec}),
        salt=hashlib.sha256(b"salt" + seed).digest()[:16],
        callback_hash=hashlib.sha256(b"callback" + seed).digest(),
        signal_hash=hashlib.sha256(b"signal" + seed).digest(),
        is_listed=listed,
    )


def make_task_record(**changes: Any) -> TaskRecord:
    """A completed task, created at 2025-01-15T10:10:00Z, as it is shown to clients."""
    created = 1_736_935_800_000
    times: dict[str, Any] = {"created_at": created, "started_at": created + 1000, "finished_at": created + 3345}
    job = make_job_view(request_id="019d2b00-1234-7000-a000-000000000001", attempt=2, status=200, **times)
    spec = TaskSpec("https://service.example", 30.0, target="/work", method="POST", timeout=30.0, backoff=Backoff.LINEAR)
    headers = ((b"content-type", b"application/json"), (b"x-a", b"1"), (b"x-a", b"2"))
    response = StoredResponse(200, headers, b'{"ok": true}')
    given = {"job": job, "spec": spec, "status": TaskStatus.COMPLETED, "priority": 2, "max_attempts": 4, "due_at": None}
    return TaskRecord(**{**given, "webhook": None, "response": response, **changes})


def make_wait(seconds: float = 30.0, **changes: Any) -> Wait:
    return Wait(seconds, **changes)


def make_result(body: bytes = b'{"status": "OK"}', failure: Failure | None = None) -> ExternalResult:
    return ExternalResult(make_response(body), failure)


def make_delivery_attempt(status: int | None = 200, error: str | None = None) -> DeliveryAttempt:
    return DeliveryAttempt(at=1_800_000_000_000, duration=0.1, status=status, error=error)


class Ports(Protocol):
    """The ports of a store beside that of its jobs."""

    @property
    def webhooks(self) -> WebhookStore: ...

    @property
    def tasks(self) -> TaskStore: ...


async def claim_deliveries(store: Ports, limit: int = 100) -> list[DeliveryClaim]:
    """Claim up to `limit` deliveries, of any receivers."""
    return (await store.webhooks.claim(Capacity(limit, limit))).deliveries


async def claim_polls(store: Ports, limit: int = 100) -> list[PollClaim]:
    """Claim up to `limit` polls, of any providers."""
    return (await store.tasks.claim_polls(PollCapacity(limit, unproven=limit, per_host=limit))).polls
