"""Spans of OpenTelemetry's real SDK: how they are linked, what is propagated, and what they contain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware, current_job
from queue_middleware.observability.otel import names
from queue_middleware.observability.otel.spans import MAX_PROGRESS_EVENTS
from tests.support.provider_server import Call, Reply, providing
from tests.support.queue_client import Queue, connected, eventually, serving
from tests.support.spans import Spans, id_of, links_of, parent_of, text_of, traceparent_of
from tests.support.webhook_receiver import Webhook, receiving

pytestmark = pytest.mark.usefixtures("course")

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CALLER_ID = (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
TRACED = {"traceparent": CALLER, "tracestate": "vendor=1", "baggage": "tenant=7"}
LOCAL: dict[str, Any] = {"outbound_allow": ["127.0.0.1", "localhost"], "task_targets": ["127.0.0.1", "localhost"]}


async def show(request: Request) -> Response:
    with trace.get_tracer("application").start_as_current_span("inner"):
        return JSONResponse({name: request.headers.get(name) for name in ("traceparent", "tracestate", "baggage")})


async def fail(request: Request) -> Response:
    raise LookupError("the text of the error")


async def status(request: Request) -> Response:
    return Response(status_code=int(request.path_params["status"]))


async def progress(request: Request) -> Response:
    for step in range(20):
        current_job.report_progress(step / 20, stage="a secret stage")
    return Response()


async def wait(request: Request) -> Response:
    while not await request.is_disconnected():
        await request.receive()
    return Response()


def application() -> Starlette:
    routes = {"/show": show, "/fail": fail, "/status/{status}": status, "/progress": progress, "/wait": wait}
    return Starlette(routes=[Route(path, handler, methods=["GET", "POST"]) for path, handler in routes.items()])


@pytest.fixture
def spans() -> Iterator[Spans]:
    with Spans().as_provider() as spans:
        yield spans


def route_of(scope: Any) -> str:
    """The first segment of the path. Otherwise a route is known only after its first attempt."""
    return "/" + str(scope["path"]).split("/")[1]


@asynccontextmanager
async def served(database: Path, **options: Any) -> Any:
    async with serving(application(), database, route_of=route_of, **LOCAL, **options) as queue:
        yield queue


# --- submissions and attempts


async def test_a_submission_is_a_child_of_the_caller_and_an_attempt_is_linked_to_it(spans: Spans, database: Path) -> None:
    async with served(database) as queue:
        request_id = await queue.submit("POST", "/show", content=b"12345678", headers=TRACED)
        shown = (await queue.response(request_id)).json()
        (process,) = await spans.ended("process /show")
    (submit,) = spans.named("submit /show")
    (inner,) = spans.named("inner")
    assert (submit.kind, parent_of(submit), links_of(submit)) == (SpanKind.PRODUCER, CALLER_ID, [])
    assert (process.kind, parent_of(process), links_of(process)) == (SpanKind.CONSUMER, None, [id_of(submit)])
    assert process.context.trace_id != submit.context.trace_id
    assert parent_of(inner) == id_of(process)
    assert shown == {"traceparent": traceparent_of(process), "tracestate": None, "baggage": "tenant=7"}
    assert dict(submit.attributes) == {
        "messaging.system": "queue_middleware",
        "messaging.operation.name": "submit",
        "messaging.operation.type": "send",
        "messaging.destination.template": "/show",
        "messaging.message.body.size": 8,
        "messaging.message.id": request_id,
        "queue_middleware.position": 0,
        "http.response.status_code": 200,
    }
    attributes = dict(process.attributes)
    assert 0 <= attributes.pop("queue_middleware.wait") < 60
    assert attributes == {
        "messaging.system": "queue_middleware",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.template": "/show",
        "messaging.message.id": request_id,
        "queue_middleware.attempt": 1,
        "http.response.status_code": 200,
    }
    assert (submit.instrumentation_scope.name, submit.instrumentation_scope.schema_url) == (names.SCOPE, names.SCHEMA_URL)


async def test_with_parent_all_spans_are_of_one_trace(spans: Spans, database: Path) -> None:
    async with receiving() as receiver, served(database, tracing="parent") as queue:
        parameters = {"fal_webhook": receiver.url}
        shown = await queue.run("POST", "/show", json={}, headers=TRACED, params=parameters)
        (post,) = await spans.ended("POST")
    (process,), (submit,) = spans.named("process /show"), spans.named("submit /show")
    assert (parent_of(submit), parent_of(process), parent_of(post)) == (CALLER_ID, id_of(submit), id_of(process))
    assert links_of(process) == links_of(post) == []
    assert shown.json()["tracestate"] == "vendor=1"


async def test_a_span_of_an_outer_middleware_is_the_parent_of_a_submission(spans: Spans, database: Path) -> None:
    async with served(database) as queue:
        with trace.get_tracer("server").start_as_current_span("outer"):
            await queue.submit("POST", "/show", json={}, headers=TRACED)
        await spans.ended("process /show")
    (outer,), (submit,) = spans.named("outer"), spans.named("submit /show")
    assert parent_of(submit) == id_of(outer)


@pytest.mark.usefixtures("at_once")
async def test_each_attempt_is_a_trace_of_its_own(spans: Spans, database: Path) -> None:
    async with served(database, max_attempts=3) as queue:
        await queue.run("GET", "/status/503")
        attempts = await spans.ended("process /status", 3)
    (submit,) = [span for span in spans.all() if span.name.startswith("submit")]
    assert [links_of(span) for span in attempts] == [[id_of(submit)]] * 3
    assert len({span.context.trace_id for span in (submit, *attempts)}) == 4
    assert [span.attributes["queue_middleware.attempt"] for span in attempts] == [1, 2, 3]


@pytest.mark.parametrize(
    ("path", "error", "code"),
    [
        ("/status/200", None, StatusCode.UNSET),
        ("/status/404", None, StatusCode.UNSET),
        ("/status/500", "500", StatusCode.ERROR),
        ("/fail", "LookupError", StatusCode.ERROR),
    ],
)
async def test_an_attempt_shows_its_status_and_error(
    path: str, error: str | None, code: StatusCode, spans: Spans, database: Path
) -> None:
    async with served(database) as queue:
        response = await queue.run("GET", path)
        (span,) = await eventually(lambda: [span for span in spans.all() if span.name.startswith("process")])
    assert span.attributes["http.response.status_code"] == response.status_code
    assert (span.attributes.get("error.type"), span.status.status_code, span.status.description) == (error, code, None)
    assert span.events == ()


async def test_failures_cancellations_and_shutdowns_are_visible(spans: Spans, database: Path) -> None:
    async with served(database, request_timeout=0.2, max_attempts=1) as queue:
        await queue.run("GET", "/wait")
        (late,) = await spans.ended("process /wait")
    async with served(database, shutdown_timeout=0) as queue:
        cancelled = await queue.submit("GET", "/wait")
        await queue.reaches(cancelled, "IN_PROGRESS")
        await queue.cancel(cancelled)
        await queue.reaches(cancelled, "COMPLETED")
        await spans.ended("process /wait", 2)
        await queue.reaches(await queue.submit("GET", "/wait"), "IN_PROGRESS")
    late, ended, handed_back = spans.named("process /wait")
    assert (late.attributes["error.type"], late.status.status_code) == ("request_timeout", StatusCode.ERROR)
    assert (ended.attributes["error.type"], ended.status.status_code) == (
        "client_cancelled",
        StatusCode.UNSET,
    )
    assert [event.name for event in handed_back.events] == ["handed_back"]
    assert "error.type" not in handed_back.attributes
    (cancel,) = spans.named("cancel")
    assert (cancel.kind, cancel.attributes["queue_middleware.count"]) == (SpanKind.INTERNAL, 1)


async def test_progress_is_shown_without_the_name_of_the_stage(spans: Spans, database: Path) -> None:
    async with served(database) as queue:
        await queue.run("GET", "/progress")
        (process,) = await spans.ended("process /progress")
    assert [event.name for event in process.events] == ["progress"] * MAX_PROGRESS_EVENTS
    assert process.events[-1].attributes == {"queue_middleware.progress.fraction": 0.45}
    assert "secret" not in text_of(process)


async def test_a_copy_is_linked_to_the_submission_of_its_original(spans: Spans, database: Path) -> None:
    queue = QueueMiddleware(application(), database=database, route_of=route_of, keep_requests="all", min_free_disk=0)
    async with connected(queue) as client:
        original = await client.submit("POST", "/show", json={})
        await client.reaches(original, "COMPLETED")
        copy = await queue.replay(original)
        await client.reaches(copy, "COMPLETED")
        processes = await spans.ended("process /show", 2)
    (submit,), (replay,) = spans.named("submit /show"), spans.named("replay")
    assert [links_of(process) for process in processes] == [[id_of(submit)]] * 2
    assert (replay.kind, replay.attributes["queue_middleware.count"]) == (SpanKind.INTERNAL, 1)


async def test_a_refused_submission_shows_its_error(spans: Spans, database: Path) -> None:
    async with served(database, concurrency=1, max_queued=1) as queue:
        await queue.reaches(await queue.submit("GET", "/wait"), "IN_PROGRESS")
        await queue.submit("GET", "/wait")
        assert (await queue.client.get("/fal/queue/submit/wait")).status_code == 503
    *_, refused = spans.named("submit /wait")
    assert (refused.attributes["error.type"], refused.attributes["http.response.status_code"]) == ("QueueFull", 503)
    assert (refused.status.status_code, refused.status.description, refused.events) == (StatusCode.ERROR, None, ())


async def test_a_repeated_submission_names_the_existing_request(spans: Spans, database: Path) -> None:
    async with served(database) as queue:
        ids = [await queue.submit("GET", "/show", headers={"Idempotency-Key": "one"}) for _ in range(2)]
        await queue.response(ids[0])
    first, second = spans.named("submit /show")
    assert first.attributes["messaging.message.id"] == second.attributes["messaging.message.id"] == ids[1]
    assert "queue_middleware.existing" not in first.attributes
    assert second.attributes["queue_middleware.existing"] is True


# --- webhooks


async def test_a_webhook_is_linked_to_the_attempt_and_carries_its_own_span(spans: Spans, database: Path) -> None:
    async with receiving() as receiver, served(database) as queue:
        request_id = await queue.submit("POST", "/show", json={}, params={"fal_webhook": f"{receiver.url}/secret?key=secret"})
        (post,) = await spans.ended("POST")
    (process,) = spans.named("process /show")
    assert (post.kind, parent_of(post), links_of(post)) == (SpanKind.CLIENT, None, [id_of(process)])
    (webhook,) = receiver.webhooks_for(request_id)
    assert webhook.headers["traceparent"] == traceparent_of(post)
    port = int(receiver.url.rpartition(":")[2])
    assert dict(post.attributes) == {
        "http.request.method": "POST",
        "queue_middleware.request_id": request_id,
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.full": f"http://127.0.0.1:{port}/REDACTED",
        "messaging.message.id": request_id,
        "queue_middleware.webhook.kind": "completed",
        "http.response.status_code": 200,
    }


async def test_a_webhook_that_follows_at_once_is_a_child_of_the_attempt(course: str, spans: Spans, database: Path) -> None:
    """A receiver that is known to be healthy gets its webhook at once; with the unusual course, none does."""
    async with receiving() as receiver, served(database) as queue:
        for count in (1, 2):
            await queue.submit("POST", "/show", json={}, params={"fal_webhook": receiver.url})
            await spans.ended("POST", count)
    _, second = spans.named("process /show")
    _, post = spans.named("POST")
    expected = (None, [id_of(second)]) if course == "unusual" else (id_of(second), [])
    assert (parent_of(post), links_of(post)) == expected


async def test_a_repeated_webhook_is_linked_after_a_restart(spans: Spans, database: Path) -> None:
    statuses = [500, 200]

    def respond(webhook: Webhook) -> int:
        return statuses.pop(0)

    async with receiving(respond) as receiver:
        async with served(database, webhook_schedule=[0.01]) as queue:
            await queue.submit("POST", "/show", json={}, params={"fal_webhook": receiver.url})
            await spans.ended("POST", 1)
        async with served(database, webhook_schedule=[0.01]):
            await spans.ended("POST", 2)
    (process,) = spans.named("process /show")
    first, second = spans.named("POST")
    assert (first.attributes["error.type"], first.status.status_code) == ("500", StatusCode.ERROR)
    assert "http.request.resend_count" not in first.attributes
    assert second.attributes["http.request.resend_count"] == 1
    assert (parent_of(second), links_of(second)) == (None, [id_of(process)])


async def test_a_webhook_that_reaches_nothing_shows_the_class_of_the_error(spans: Spans, database: Path) -> None:
    async with served(database) as queue:
        await queue.submit("POST", "/show", json={}, params={"fal_webhook": "http://127.0.0.1:9/secret"})
        (post,) = await spans.ended("POST")
    assert (post.attributes["error.type"], post.status.description, post.events) == ("OutboundUnreached", None, ())
    assert "http.response.status_code" not in post.attributes


async def test_no_trace_leaves_without_trace_outbound(spans: Spans, database: Path) -> None:
    async with receiving() as receiver, providing() as provider, served(database, trace_outbound=False) as queue:
        request_id = await queue.submit("POST", "/show", json={}, params={"fal_webhook": receiver.url}, headers=TRACED)
        await create_task(queue, targetUrl=f"{provider.url}/x", headers={"Traceparent": CALLER})
        await spans.ended("POST", 2)
        (webhook,) = receiver.webhooks_for(request_id)
    assert "traceparent" not in webhook.headers
    assert "traceparent" not in provider.calls[0].headers


# --- external services


async def create_task(queue: Queue, headers: dict[str, str] | None = None, **task: Any) -> str:
    body = {**task, "headers": headers or {}}
    response = await queue.client.post("/fal/queue/v1/tasks", json=body, headers={"traceparent": CALLER})
    assert response.status_code == 201, response.text
    return str(response.json()["task"]["id"])


async def test_calls_of_a_target_are_children_and_another_host_gets_no_trace(spans: Spans, database: Path) -> None:
    def respond(call: Call) -> Reply:
        if call.target == "/moved":
            return Reply(200, b"{}")
        return Reply(307, b"", (("location", f"{provider.url.replace('127.0.0.1', 'localhost')}/moved"),))

    async with providing(respond) as provider, served(database) as queue:
        task_id = await create_task(queue, targetUrl=f"{provider.url}/start?key=secret", method="POST")
        await queue.reaches(task_id, "COMPLETED")
        await eventually(lambda: [span for span in spans.all() if span.name.startswith("process")])
    first, second = spans.named("POST")
    (process,) = [span for span in spans.all() if span.name.startswith("process")]
    (submit,) = [span for span in spans.all() if span.name.startswith("submit")]
    assert parent_of(submit) == CALLER_ID
    assert submit.attributes["http.response.status_code"] == 201
    assert links_of(process) == [id_of(submit)]
    assert parent_of(first) == parent_of(second) == id_of(process)
    assert provider.calls[0].headers["traceparent"] == traceparent_of(first)
    assert "traceparent" not in provider.calls[1].headers
    assert (first.attributes["http.response.status_code"], first.status.status_code) == (307, StatusCode.UNSET)
    assert second.attributes["http.request.resend_count"] == 1


@pytest.mark.usefixtures("soon")
async def test_a_poll_is_linked_to_the_attempt(spans: Spans, database: Path) -> None:
    def respond(call: Call) -> Reply:
        return Reply() if call.method == "POST" else Reply(200, b'{"id": "p1", "status": "done"}')

    polls = {"urlTemplate": "/{startResult.body.id}", "statusPath": "status", "doneValues": ["done"], "failValues": []}
    async with providing(respond) as provider, served(database) as queue:
        task = {"targetUrl": f"{provider.url}/start", "pollConfig": {**polls, "interval": 0.1}}
        await queue.reaches(await create_task(queue, headers={"X-Own": "1"}, **task), "COMPLETED")
        (poll,) = await spans.ended("GET")
    (process,) = [span for span in spans.all() if span.name.startswith("process")]
    assert (poll.kind, parent_of(poll), links_of(poll)) == (SpanKind.CLIENT, None, [id_of(process)])
    assert provider.calls[1].headers["traceparent"] == traceparent_of(poll)
    assert provider.calls[1].headers["x-own"] == "1"


async def test_a_callback_is_a_child_of_the_provider_and_linked_to_the_attempt(spans: Spans, database: Path) -> None:
    urls: list[str] = []

    async def start(request: Request) -> Response:
        urls.append(str(current_job.callback_url))
        return Response(status_code=202)

    async with serving(Starlette(routes=[Route("/call", start)]), database, route_of=route_of) as queue:
        request_id = await queue.submit("GET", "/call")
        await spans.ended("process /call")
        await queue.client.post(urls[0], json={"secret": "secret"}, headers=TRACED)
        await queue.client.post(urls[0], json={}, headers=TRACED)
        await queue.reaches(request_id, "COMPLETED")
        callback, repeated = await spans.ended("receive callback", 2)
    (process,) = spans.named("process /call")
    assert (callback.kind, parent_of(callback), links_of(callback)) == (SpanKind.SERVER, CALLER_ID, [id_of(process)])
    assert dict(callback.attributes) == {
        "messaging.system": "queue_middleware",
        "messaging.operation.name": "callback",
        "messaging.operation.type": "settle",
        "messaging.message.id": request_id,
        "queue_middleware.channel": "callback",
        "queue_middleware.result": "completed",
    }
    assert "queue_middleware.result" not in repeated.attributes


# --- identities and secrets


@pytest.mark.parametrize("shown", [False, True])
async def test_submitters_and_operators_are_named_only_on_request(shown: bool, spans: Spans, database: Path) -> None:
    options = {"otel_identities": shown, "api_keys": ["ann:the-key-of-ann-0123456789"], "min_free_disk": 0}
    queue = QueueMiddleware(application(), database=database, route_of=route_of, **options)
    async with connected(queue) as client:
        await client.submit("POST", "/show", json={}, headers={"Authorization": "Key ann:the-key-of-ann-0123456789"})
        await spans.ended("process /show")
        await queue.pause("/show", operator="bob")
    (submit,), (pause,) = spans.named("submit /show"), spans.named("pause")
    expected = ("ann", "bob") if shown else (None, None)
    assert (submit.attributes.get("enduser.id"), pause.attributes.get("enduser.id")) == expected


async def test_no_span_contains_what_a_client_has_sent(spans: Spans, database: Path) -> None:
    secret = "canary4711"

    async def leak(request: Request) -> Response:
        current_job.log("a line", label=secret)
        current_job.report_progress(0.5, secret)
        raise LookupError(f"{secret} {await request.body()!r}")

    def respond(call: Call) -> Reply:
        return Reply(302, b"", (("location", f"/{secret}"),)) if call.method == "POST" else Reply(400, secret.encode())

    app = Starlette(routes=[Route("/leak", leak, methods=["POST"])])
    async with receiving() as receiver, providing(respond) as provider, serving(app, database, **LOCAL) as queue:
        request_id = await queue.submit(
            "POST",
            f"/leak?token={secret}",
            content=secret,
            headers={"Authorization": f"Bearer {secret}", "Cookie": secret, "X-Api-Key": secret},
            params={"token": secret, "fal_webhook": f"{receiver.url}/{secret}?key={secret}"},
        )
        await queue.reaches(request_id, "COMPLETED")
        target = f"{provider.url}/{secret}?key={secret}"
        task_id = await create_task(queue, headers={"X-Key": secret}, targetUrl=target, body=secret, method="POST")
        await queue.reaches(task_id, "COMPLETED")
        refused = await queue.client.post(f"/fal/queue/submit/leak?token={secret}&fal_webhook=https://user:{secret}@host/")
        assert refused.status_code == 422 or refused.status_code == 400, refused.text
        await spans.ended("POST", 2)
    assert len(spans.all()) >= 6
    assert [text_of(span) for span in spans.all() if secret in text_of(span)] == []


# --- providers


async def test_a_trace_that_is_not_sampled_is_propagated_as_such(database: Path) -> None:
    with Spans(ALWAYS_OFF).as_provider() as spans:
        async with receiving() as receiver, served(database) as queue:
            request_id = await queue.submit("POST", "/show", json={}, headers=TRACED, params={"fal_webhook": receiver.url})
            shown = (await queue.response(request_id)).json()
            (webhook,) = await eventually(lambda: receiver.webhooks_for(request_id))
    assert spans.all() == ()
    assert shown["traceparent"] != CALLER
    for header in (shown["traceparent"], webhook.headers["traceparent"]):
        assert not int(header[-2:], 16) & TraceFlags.SAMPLED


async def test_without_a_provider_all_headers_pass_as_they_came(database: Path) -> None:
    async with receiving() as receiver, served(database) as queue:
        request_id = await queue.submit("POST", "/show", json={}, headers=TRACED, params={"fal_webhook": receiver.url})
        assert (await queue.response(request_id)).json() == TRACED
        (webhook,) = await eventually(lambda: receiver.webhooks_for(request_id))
    assert "traceparent" not in webhook.headers


async def test_a_provider_may_be_set_while_the_application_starts(database: Path) -> None:
    spans = Spans()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        with spans.as_provider():
            yield

    app = Starlette(routes=[Route("/show", show, methods=["POST"])], lifespan=lifespan)
    async with serving(app, database, route_of=route_of) as queue:
        await queue.submit("POST", "/show", json={})
        await spans.ended("process /show")
