"""A queue with a real Sentry SDK: the spans of its view of queues, the trace through the queue, and what is never reported."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware, current_job
from queue_middleware.jobs.job_list import JobFilter
from queue_middleware.observability.sentry import SentryObserver
from tests.integration.test_tasks import ENDED, tasking
from tests.meta.test_docs import ROOT
from tests.support.provider_server import Call, Reply, providing
from tests.support.queue_client import connected, eventually, serving
from tests.support.sentry import Sent, reporting
from tests.support.webhook_receiver import receiving

pytestmark = pytest.mark.usefixtures("course")

CANARIES = [f"canary-of-{place}" for place in ("headers", "cookie", "body", "query", "webhook", "label")]
PAGE = ROOT / "docs" / "how-to" / "sentry.md"
WEBHOOKS: dict[str, Any] = {"outbound_allow": "127.0.0.1", "webhook_schedule": [0.01]}


@pytest.fixture
def sent() -> Iterator[Sent]:
    with reporting(attach_stacktrace=True) as sent:
        yield sent


class Application:
    """Its endpoints fail as the query says, and show the headers of the trace."""

    def __init__(self) -> None:
        self.traces: list[dict[str, str]] = []
        self.open = asyncio.Event()
        self.app = Starlette(routes=[Route("/items/{id}", self.item, methods=["GET", "POST"])])

    async def item(self, request: Request) -> Response:
        headers = request.headers
        self.traces.append({name: headers[name] for name in ("sentry-trace", "baggage", "traceparent") if name in headers})
        await request.body()
        current_job.log("painting", customer="canary-of-label")
        if "wait" in request.query_params:
            await self.open.wait()
        with sentry_sdk.start_span(op="work", name="inside"):
            pass
        if "raise" in request.query_params:
            raise ValueError("no herring")
        status = 503 if "retry" in request.query_params and "x-fal-attempt" not in headers else 200
        return JSONResponse({}, status, headers={"x-fal-needs-retry": "1"} if status == 503 else {})


def route_of(scope: Any) -> str:
    return "/items/{id}"


def data(span: dict[str, Any]) -> dict[str, Any]:
    values = span["contexts"]["trace"]["data"] if "contexts" in span else span["data"]
    return {name: value for name, value in values.items() if name.startswith("messaging.")}


def trace(event: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = event["contexts"]["trace"]
    return found


async def test_a_request_is_published_and_processed_in_one_trace(database: Path, sent: Sent) -> None:
    application = Application()
    async with serving(application.app, database, observers=[SentryObserver()], route_of=route_of) as queue:
        request_id = await queue.submit("POST", "/items/1", content=b"12345")
        await queue.response(request_id)
        await eventually(lambda: sent.transactions("queue.process"))
    (publish,), (process,) = sent.transactions("queue.publish"), sent.transactions("queue.process")
    common = {
        "messaging.system": "queue_middleware",
        "messaging.destination.name": "/items/{id}",
        "messaging.message.id": request_id,
        "messaging.message.body.size": 5,
    }
    assert data(publish) == common
    latency = data(process)["messaging.message.receive.latency"]
    assert 0 <= latency < 60_000
    assert data(process) == {
        **common, "messaging.message.receive.latency": latency, "messaging.message.retry.count": 0,
    }  # fmt: skip
    assert [(event["transaction"], event["transaction_info"]["source"]) for event in (publish, process)] == [
        ("/items/{id}", "route")
    ] * 2
    assert trace(process)["status"] == "ok"
    assert trace(process)["trace_id"] == trace(publish)["trace_id"]
    assert trace(process)["parent_span_id"] == trace(publish)["span_id"]
    assert process["tags"] == {"queue.request_id": request_id, "queue.attempt": "1", "queue.route": "/items/{id}"}
    # The application continues the trace of its own attempt.
    assert application.traces[0]["sentry-trace"].split("-")[:2] == [trace(process)["trace_id"], trace(process)["span_id"]]
    assert [span["op"] for span in process["spans"]] == ["work"]


async def test_the_page_lists_the_data_of_both_spans(database: Path, sent: Sent) -> None:
    async with serving(Application().app, database, observers=[SentryObserver()]) as queue:
        await queue.response(await queue.submit("GET", "/items/1"))
        await eventually(lambda: sent.transactions("queue.process"))
    rows = dict(re.findall(r"^\| `(queue\.\w+)` \| [^|]+ \| ([^|]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE))
    listed = {op: set(re.findall(r"`([\w.]+)`", text)) for op, text in rows.items()}
    assert listed["queue.publish"] == set(data(sent.transactions("queue.publish")[0]))
    assert listed["queue.publish"] | listed["queue.process"] == set(data(sent.transactions("queue.process")[0]))


async def test_a_request_that_a_restart_interrupts_stays_in_its_trace(database: Path, sent: Sent) -> None:
    application = Application()
    async with serving(application.app, database, observers=[SentryObserver()], shutdown_timeout=0) as queue:
        request_id = await queue.submit("GET", "/items/1?wait=1")
        await queue.reaches(request_id, "IN_PROGRESS")
    application.open.set()
    async with serving(application.app, database, observers=[SentryObserver()]) as queue:
        await queue.response(request_id)
        await eventually(lambda: len(sent.transactions("queue.process")) == 2)
    (publish,), processes = sent.transactions("queue.publish"), sent.transactions("queue.process")
    assert [trace(each)["status"] for each in processes] == ["aborted", "ok"]
    assert {trace(each)["parent_span_id"] for each in processes} == {trace(publish)["span_id"]}
    assert {trace(each)["trace_id"] for each in processes} == {trace(publish)["trace_id"]}


async def test_a_submission_that_is_known_has_the_id_of_the_first(database: Path, sent: Sent) -> None:
    async with serving(Application().app, database, observers=[SentryObserver()]) as queue:
        ids = [await queue.submit("GET", "/items/1", headers={"idempotency-key": "one"}) for _ in range(2)]
        await queue.response(ids[0])
        await eventually(lambda: sent.transactions("queue.process"))
    assert [data(each)["messaging.message.id"] for each in sent.transactions("queue.publish")] == [ids[0]] * 2
    assert ids[0] == ids[1]
    assert len(sent.transactions("queue.process")) == 1


async def test_each_copy_of_an_operator_is_published(database: Path, sent: Sent) -> None:
    options: dict[str, Any] = {"observers": [SentryObserver()], "keep_requests": "all", "min_free_disk": 0}
    queue = QueueMiddleware(Application().app, database=database, **options)
    async with connected(queue) as client:
        for _ in range(2):
            await client.run("GET", "/items/1")
        copies = (await queue.replay(JobFilter())).copies
        await eventually(lambda: len(sent.transactions("queue.process")) == 4)
    published = {data(each)["messaging.message.id"]: trace(each) for each in sent.transactions("queue.publish")}
    assert published.keys() == {*copies, *copies.values()}
    assert len({each["trace_id"] for each in published.values()}) == 4
    for process in sent.transactions("queue.process"):
        assert trace(process)["parent_span_id"] == published[data(process)["messaging.message.id"]]["span_id"]


async def test_the_trace_of_the_client_is_continued_and_other_baggage_stays(database: Path, sent: Sent) -> None:
    application = Application()
    own = {
        "sentry-trace": f"{'a' * 32}-{'b' * 16}-1",
        "baggage": "shop=3,sentry-trace_id=" + "a" * 32,
        "traceparent": "00-other",
    }
    async with serving(application.app, database, observers=[SentryObserver()]) as queue:
        await queue.response(await queue.submit("GET", "/items/1", headers=own))
        await eventually(lambda: sent.transactions("queue.process"))
    (publish,), (process,) = sent.transactions("queue.publish"), sent.transactions("queue.process")
    assert (trace(publish)["trace_id"], trace(publish)["parent_span_id"]) == ("a" * 32, "b" * 16)
    assert trace(process)["trace_id"] == "a" * 32
    (received,) = application.traces
    assert received["traceparent"] == "00-other"
    assert received["baggage"].split(",")[0] == "shop=3"
    assert received["baggage"].count("sentry-trace_id=") == 1


async def test_each_attempt_is_a_transaction_with_its_number(database: Path, sent: Sent) -> None:
    application = Application()
    async with serving(application.app, database, observers=[SentryObserver()]) as queue:
        await queue.response(await queue.submit("GET", "/items/1?retry=1"))
        await eventually(lambda: len(sent.transactions("queue.process")) == 2)
    first, second = sent.transactions("queue.process")
    assert [data(each)["messaging.message.retry.count"] for each in (first, second)] == [0, 1]
    assert [trace(each)["status"] for each in (first, second)] == ["internal_error", "ok"]
    assert trace(first)["parent_span_id"] == trace(second)["parent_span_id"]
    assert trace(first)["span_id"] != trace(second)["span_id"]
    assert [each["sentry-trace"].split("-")[1] for each in application.traces] == [
        trace(each)["span_id"] for each in (first, second)
    ]


async def test_a_submission_inside_a_transaction_is_a_span_of_it(database: Path, sent: Sent) -> None:
    async with serving(Application().app, database, observers=[SentryObserver()]) as queue:
        with sentry_sdk.start_transaction(op="http.server", name="shop") as shop:
            request_id = await queue.submit("GET", "/items/1")
        await queue.response(request_id)
        await eventually(lambda: sent.transactions("queue.process"))
    assert sent.transactions("queue.publish") == []
    (publish,) = sent.spans("queue.publish")
    assert publish["trace_id"] == shop.trace_id
    assert data(publish)["messaging.message.id"] == request_id
    assert trace(sent.transactions("queue.process")[0])["parent_span_id"] == publish["span_id"]


async def test_a_refused_submission_is_an_error_without_an_issue(database: Path, sent: Sent) -> None:
    application = Application()
    async with serving(application.app, database, observers=[SentryObserver()], concurrency=1, max_queued=1) as queue:
        await queue.reaches(await queue.submit("GET", "/items/1?wait=1"), "IN_PROGRESS")
        await queue.submit("GET", "/items/1")
        assert (await queue.client.get("/fal/queue/submit/items/1")).status_code == 503
        application.open.set()
    publish = sent.transactions("queue.publish")[-1]
    assert trace(publish)["status"] == "internal_error"
    assert "messaging.message.id" not in data(publish)
    assert sent.issues == []


async def test_an_error_is_one_issue_in_the_trace_of_its_attempt(database: Path, sent: Sent) -> None:
    async with serving(Application().app, database, observers=[SentryObserver()], route_of=route_of) as queue:
        request_id = await queue.submit("GET", "/items/1?raise=1")
        await queue.response(request_id)
        await eventually(lambda: sent.transactions("queue.process"))
    (issue,), (process,) = sent.issues, sent.transactions("queue.process")
    assert issue["exception"]["values"][0]["value"] == (f"no herring\nqueue request {request_id}, attempt 1 of /items/{{id}}")
    assert issue["tags"] == {"queue.request_id": request_id, "queue.attempt": "1", "queue.route": "/items/{id}"}
    assert trace(issue)["trace_id"] == trace(process)["trace_id"]
    assert trace(issue)["span_id"] == trace(process)["span_id"]
    assert trace(process)["status"] == "internal_error"


async def test_an_error_that_the_application_has_reported_is_no_second_issue(database: Path, sent: Sent) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            raise ValueError("no herring")
        except ValueError as error:
            with sentry_sdk.isolation_scope():  # as integrations do
                sentry_sdk.capture_exception(error)
            raise ExceptionGroup("several", [error]) from None

    async with serving(app, database, observers=[SentryObserver()]) as queue:
        sent.events.clear()  # the lifespan
        await queue.response(await queue.submit("GET", "/"))
        await eventually(lambda: sent.transactions("queue.process"))
    assert [issue["exception"]["values"][0]["type"] for issue in sent.issues] == ["ValueError"]


async def test_a_dead_webhook_is_an_issue_without_its_url(database: Path, sent: Sent) -> None:
    async with (
        receiving(lambda webhook: 410) as receiver,
        serving(Application().app, database, observers=[SentryObserver()], **WEBHOOKS) as queue,
    ):
        webhook = f"{receiver.url}/hook?token=canary-of-webhook"
        request_id = await queue.submit("GET", "/items/1", params={"fal_webhook": webhook})
        await queue.response(request_id)
        await eventually(lambda: sent.issues)
    (issue,) = sent.issues
    assert issue["contexts"]["queue"]["queue_event"] == "delivery_dead"
    assert issue["tags"]["queue.request_id"] == request_id
    assert "canary" not in json.dumps(sent.events)


async def test_nothing_private_is_reported(database: Path, sent: Sent) -> None:
    async with receiving(lambda webhook: 500) as receiver:
        application = Application()
        async with serving(application.app, database, observers=[SentryObserver()], **WEBHOOKS) as queue:
            for query in ({"raise": "1"}, {"retry": "1"}):
                request_id = await queue.submit(
                    "POST",
                    "/items/1",
                    params={**query, "q": "canary-of-query", "fal_webhook": f"{receiver.url}/?token=canary-of-webhook"},
                    headers={"authorization": "canary-of-headers", "cookie": "c=canary-of-cookie"},
                    content=b"canary-of-body",
                )
                await queue.response(request_id)
            await eventually(lambda: len(sent.transactions("queue.process")) == 3)
            await eventually(lambda: [one for one in sent.issues if "message" in one or "logentry" in one])
    text = json.dumps(sent.events)
    assert [canary for canary in CANARIES if canary in text] == []


async def test_a_call_of_another_service_has_no_headers_of_sentry(database: Path, sent: Sent) -> None:
    def reply(call: Call) -> Reply:
        return Reply(200, b'{"status": "done"}')

    async with tasking(database, Application().app, observers=[SentryObserver()]) as tasks, providing(reply) as provider:
        created = await tasks.create(f"{provider.url}/start", headers={"x-own": "1"})
        await tasks.reaches(created["task"]["id"], *ENDED)
        await eventually(lambda: sent.transactions("queue.process"))
    assert [call.headers.get("x-own") for call in provider.calls] == ["1"]
    assert [name for call in provider.calls for name in call.headers if name in ("sentry-trace", "baggage")] == []
    (publish,), (process,) = sent.transactions("queue.publish"), sent.transactions("queue.process")
    assert trace(process)["trace_id"] != trace(publish)["trace_id"]


async def test_without_spans_the_issue_is_in_the_trace_of_the_submission(database: Path) -> None:
    application = Application()
    with reporting(traces_sample_rate=None) as sent:
        async with serving(application.app, database, observers=[SentryObserver()]) as queue:
            own = {"sentry-trace": f"{'a' * 32}-{'b' * 16}"}
            await queue.response(await queue.submit("GET", "/items/1?raise=1", headers=own))
    assert [event.get("type") for event in sent.events] == [None]
    assert trace(sent.issues[0])["trace_id"] == "a" * 32
    assert application.traces[0]["sentry-trace"].startswith("a" * 32)


async def test_while_spans_are_streamed_there_are_issues_and_tags(database: Path) -> None:
    with reporting(trace_lifecycle="stream") as sent:
        async with serving(Application().app, database, observers=[SentryObserver()]) as queue:
            request_id = await queue.submit("GET", "/items/1?raise=1")
            assert (await queue.response(request_id)).status_code == 500
    assert [issue["tags"]["queue.request_id"] for issue in sent.issues] == [request_id]


async def test_without_an_initialized_sdk_requests_stay_as_they_are(database: Path) -> None:
    assert not sentry_sdk.is_initialized()
    application = Application()
    async with serving(application.app, database, observers=[SentryObserver()]) as queue:
        await queue.response(await queue.submit("GET", "/items/1", headers={"sentry-trace": "as it came"}))
    assert application.traces == [{"sentry-trace": "as it came"}]
