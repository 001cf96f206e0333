"""The public API as strictly typed programs use it: options, operator methods, observers, errors, receivers."""

import logging
from datetime import UTC, datetime
from typing import assert_type

import structlog
from fastapi import FastAPI
from starlette.requests import Request

from queue_middleware import QueueMiddleware, Settings, current_job
from queue_middleware.errors import BadRequest, NotRunning, QueueError, SettingsError, UnknownRequest
from queue_middleware.events import Event, Finished, Observer
from queue_middleware.jobs.acts import ActReport
from queue_middleware.jobs.audit import AuditRecord
from queue_middleware.jobs.counts import QueueCounts
from queue_middleware.jobs.job_detail import JobDetail
from queue_middleware.jobs.job_list import JobPage, select
from queue_middleware.jobs.models import CancelOutcome
from queue_middleware.jobs.pauses import Pause
from queue_middleware.jobs.processes import ProcessRecord
from queue_middleware.jobs.timeline import TimelineEntry
from queue_middleware.logging import RequestFilter, add_request
from queue_middleware.observability.sentry import SentryObserver
from queue_middleware.verify import VerifiedWebhook, WebhookVerifier
from queue_middleware.webhooks.models import DeliveryAttempt, DeliveryRecord, FlowRecord

queue = QueueMiddleware(FastAPI())


# --- settings

settings = Settings.load({"concurrency": 2, "retention": "7d"}, {})
assert_type(settings.database, str)
assert_type(settings.name, str | None)
assert_type(settings.concurrency, int)
assert_type(settings.retention, float)
assert_type(settings.webhook_schedule, tuple[float, ...])
assert_type(settings.min_free_disk, int | None)


# --- operator methods


async def operate() -> None:
    assert_type(await queue.counts(), QueueCounts)
    deliveries = await queue.deliveries(after=0, limit=10, host="example.com", dead_only=True)
    assert_type(deliveries, list[DeliveryRecord])
    assert_type(await queue.delivery_attempts(deliveries[0].id), list[DeliveryAttempt])
    assert_type(await queue.receivers(), list[FlowRecord])
    assert_type(await queue.pause("/images", reason="maintenance", until=datetime.now(UTC), operator="carol"), None)
    assert_type(await queue.resume("/images"), bool)
    assert_type(await queue.pauses(), list[Pause])
    assert_type(await queue.processes(), list[ProcessRecord])
    assert_type(await queue.audit(before=100, limit=10), list[AuditRecord])
    assert_type(await queue.redeliver(request_id="0192d3b5-0000-7000-8000-000000000000"), int)
    page = await queue.requests(select(failed_only=True), limit=10)
    assert_type(page, JobPage)
    one = page.jobs[0].job.request_id
    assert_type(await queue.request(one), JobDetail)
    assert_type(await queue.timeline(one), list[TimelineEntry])
    assert_type(await queue.cancel(one), CancelOutcome)
    assert_type(await queue.cancel(select(route="/a"), expect=3), ActReport)
    assert_type(await queue.run_now(one), bool)
    assert_type(await queue.run_now(select()), ActReport)
    assert_type(await queue.replay(one, body=b"", headers={}, webhook=None), str)
    assert_type(await queue.replay(select(), operator="alice"), ActReport)
    async with queue.running():
        pass


# --- observers


class AllEvents:
    """An observer of all events."""

    def on_event(self, event: Event) -> None:
        print(type(event).__name__)


class SomeEvents:
    """An observer of some events."""

    kinds: frozenset[type[Event]] = frozenset({Finished})

    def on_event(self, event: Event) -> None:
        print(event)


observers: list[Observer] = [AllEvents(), SomeEvents()]
QueueMiddleware(FastAPI(), observers=observers)


# --- errors

for error in (SettingsError, BadRequest, UnknownRequest, NotRunning):
    assert_type(error.status, int)
    as_root: type[QueueError] = error


def explain(error: QueueError) -> str:
    assert_type(error.headers, tuple[tuple[bytes, bytes], ...])
    return error.detail


# --- the current job


def handler() -> str | None:
    current_job.log("started", device="gpu")
    current_job.report_progress(0.5, "painting")
    assert_type(current_job.attempt, int | None)
    assert_type(current_job.route, str | None)
    assert_type(current_job.callback_url, str | None)
    return current_job.id


# --- receivers


async def receive(request: Request) -> None:
    verifier = WebhookVerifier("https://queue.example.com/fal/queue/.well-known/jwks.json")
    webhook = await verifier.verify(request.headers, await request.body())
    assert_type(webhook, VerifiedWebhook)


# --- logs and errors

stream = logging.StreamHandler()
stream.addFilter(RequestFilter(missing="-"))
structlog.configure(processors=[add_request, structlog.processors.JSONRenderer()])
reporting = QueueMiddleware(FastAPI(), observers=[SentryObserver()])
