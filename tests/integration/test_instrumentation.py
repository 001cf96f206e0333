"""The port around submissions, attempts and calls, in a whole queue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware, current_job
from queue_middleware.events import Finished, ServiceError
from queue_middleware.instrumentation import (
    ActionWork,
    AttemptWork,
    CallbackWork,
    CallKind,
    CallWork,
    Instrumentation,
    SubmissionWork,
)
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.models import ErrorType, Failure, StoredResponse
from tests.support.doubles import EventRecorder
from tests.support.provider_server import Call, Reply, providing
from tests.support.queue_client import Queue, connected, eventually, serving
from tests.support.webhook_receiver import receiving

pytestmark = pytest.mark.usefixtures("course")

active: ContextVar[str] = ContextVar("active", default="nothing")
MARK = b"x-mark"


class Marking(Instrumentation):
    """Sets a header on what is stored, replayed and sent, and a context variable during an attempt."""

    def __init__(self) -> None:
        self.submissions: list[SubmissionWork] = []
        self.attempts: list[AttemptWork] = []
        self.calls: list[CallWork] = []
        self.callbacks: list[CallbackWork] = []
        self.actions: list[ActionWork] = []
        self.errors: list[str] = []

    @contextmanager
    def submission(self, work: SubmissionWork) -> Iterator[None]:
        request = work.job.request
        work.job = work.job.replace(request=request.replace(headers=(*request.headers, (MARK, b"submission"))))
        try:
            yield
        except Exception as error:
            self.errors.append(type(error).__name__)
            raise
        self.submissions.append(work)

    @contextmanager
    def attempt(self, work: AttemptWork) -> Iterator[None]:
        request = work.claim.request
        assert (MARK, b"submission") in request.headers
        headers = tuple(pair for pair in request.headers if pair[0] != MARK)
        request = request.replace(headers=(*headers, (MARK, b"attempt")))
        work.claim = work.claim.replace(request=request, trace=f"trace of attempt {work.claim.attempt}")
        token = active.set("attempt")
        yield
        active.reset(token)
        self.attempts.append(work)

    def call(self, work: CallWork) -> AbstractContextManager[object]:
        work.headers = (*work.headers, (MARK, b"call"))
        self.calls.append(work)
        return super().call(work)

    def callback(self, work: CallbackWork) -> AbstractContextManager[object]:
        self.callbacks.append(work)
        return super().callback(work)

    def action(self, work: ActionWork) -> AbstractContextManager[object]:
        self.actions.append(work)
        return super().action(work)


class Application:
    """Shows what it received, and what is active in it."""

    def __init__(self) -> None:
        self.after: list[str] = []
        self.open = asyncio.Event()
        routes = [Route("/show", self.show, methods=["POST"]), Route("/fail", self.fail), Route("/wait", self.wait)]
        self.app = Starlette(routes=routes)

    async def show(self, request: Request) -> Response:
        content = {"mark": request.headers.getlist("x-mark"), "active": active.get()}
        return JSONResponse(content, background=BackgroundTask(lambda: self.after.append(active.get())))

    async def fail(self, request: Request) -> Response:
        raise LookupError("the text of the error")

    async def wait(self, request: Request) -> Response:
        await self.open.wait()
        return JSONResponse({})


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def marking() -> Marking:
    return Marking()


async def test_the_application_runs_inside_with_the_headers_of_the_attempt(
    application: Application, marking: Marking, database: Path
) -> None:
    async with serving(application.app, database, observers=[marking]) as queue:
        response = await queue.run("POST", "/show", json={})
        assert response.json() == {"mark": ["attempt"], "active": "attempt"}
        await eventually(lambda: marking.attempts)
        assert application.after == ["attempt"]
        assert active.get() == "nothing"
        (submission,), (attempt,) = marking.submissions, marking.attempts
        assert submission.result is not None
        assert submission.result.request_id == attempt.claim.request_id
        assert dict(submission.caller)[b"content-type"] == b"application/json"
        assert isinstance(attempt.outcome, StoredResponse)
        assert (attempt.outcome.status, attempt.error, attempt.is_handed_back) == (200, None, False)
        assert 0 <= attempt.wait < 60


async def test_an_attempt_shows_what_the_application_raised(application: Application, marking: Marking, database: Path) -> None:
    async with serving(application.app, database, observers=[marking]) as queue:
        assert (await queue.run("GET", "/fail")).status_code == 500
        await eventually(lambda: marking.attempts)
        (attempt,) = marking.attempts
        assert isinstance(attempt.error, LookupError)


async def test_an_attempt_without_a_response_has_a_failure(marking: Marking, database: Path) -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError

    async with serving(silent, database, observers=[marking], max_attempts=1) as queue:
        await queue.response(await queue.submit("GET", "/"))
        await eventually(lambda: marking.attempts)
        (attempt,) = marking.attempts
        assert isinstance(attempt.outcome, Failure)
        assert attempt.outcome.error_type is ErrorType.RUNNER_INCOMPLETE_RESPONSE


async def test_an_attempt_that_the_shutdown_interrupts_is_handed_back(
    application: Application, marking: Marking, database: Path
) -> None:
    async with serving(application.app, database, observers=[marking], shutdown_timeout=0) as queue:
        await queue.reaches(await queue.submit("GET", "/wait"), "IN_PROGRESS")
    (attempt,) = marking.attempts
    assert (attempt.outcome, attempt.is_handed_back) == (None, True)


async def test_progress_is_passed_on_and_a_faulty_listener_is_reported(database: Path) -> None:
    reports: list[float] = []

    class Listening(Instrumentation):
        @contextmanager
        def attempt(self, work: AttemptWork) -> Iterator[None]:
            work.progress_listeners += [lambda progress: 1 / 0, lambda progress: reports.append(progress.fraction)]
            yield

    async def report(request: Request) -> Response:
        current_job.report_progress(0.25)
        await asyncio.to_thread(current_job.report_progress, 0.5)
        return JSONResponse({})

    events = EventRecorder()
    app = Starlette(routes=[Route("/", report)])
    async with serving(app, database, observers=[Listening(), events]) as queue:
        await queue.run("GET", "/")
        await eventually(lambda: len(events.of(ServiceError)) == 2)
    assert reports == [0.25, 0.5]
    assert {event.where for event in events.of(ServiceError)} == {"instrumentation"}


async def test_a_refused_submission_shows_its_error(application: Application, marking: Marking, database: Path) -> None:
    async with serving(application.app, database, observers=[marking], concurrency=1, max_queued=1) as queue:
        await queue.reaches(await queue.submit("GET", "/wait"), "IN_PROGRESS")
        await queue.submit("GET", "/wait")
        assert (await queue.client.get("/fal/queue/submit/wait")).status_code == 503
        assert marking.errors == ["QueueFull"]
        application.open.set()


async def test_a_delivery_sends_the_headers_of_its_call(application: Application, marking: Marking, database: Path) -> None:
    async with receiving() as receiver:
        url = f"{receiver.url}?key=secret"
        async with serving(application.app, database, observers=[marking], outbound_allow=["127.0.0.1"]) as queue:
            request_id = await queue.submit("POST", "/show", json={}, params={"fal_webhook": url})
            await eventually(lambda: marking.calls and marking.calls[0].status)
            (call,) = marking.calls
            assert (call.kind, call.request_id, call.number, call.method) == (CallKind.WEBHOOK, request_id, 1, "POST")
            assert (call.label, call.message_id, call.is_named) == ("completed", request_id, True)
            assert call.trace == "trace of attempt 1"
            assert call.origin is not None
            assert call.origin.host == "127.0.0.1"
            assert "secret" not in repr(call)


async def test_an_instrumentation_receives_only_the_events_that_it_wants(application: Application, database: Path) -> None:
    class Observing(Instrumentation):
        kinds = frozenset({Finished})

        def __init__(self) -> None:
            self.events: list[object] = []

        def on_event(self, event: object) -> None:
            self.events.append(event)

    observing = Observing()
    async with serving(application.app, database, observers=[Instrumentation(), observing]) as queue:
        await queue.run("POST", "/show", json={})
        await eventually(lambda: observing.events)
    assert [type(event) for event in observing.events] == [Finished]


# --- external services

OPEN = {"outbound_allow": ["127.0.0.1", "localhost"], "task_targets": ["127.0.0.1", "localhost"]}
STARTED = Reply(200, b'{"id": "p1", "status": "starting"}')


async def create_task(queue: Queue, **task: Any) -> str:
    response = await queue.client.post("/fal/queue/v1/tasks", json=task, headers={"x-caller": "yes"})
    assert response.status_code == 201, response.text
    return str(response.json()["task"]["id"])


async def test_each_hop_of_a_target_is_a_call_inside_the_attempt(
    application: Application, marking: Marking, database: Path
) -> None:
    def respond(call: Call) -> Reply:
        if call.target == "/moved":
            return Reply(200, b"{}")
        elsewhere = provider.url.replace("127.0.0.1", "localhost")
        return Reply(307, b"", (("location", f"{elsewhere}/moved"),))

    async with (
        providing(respond) as provider,
        serving(application.app, database, observers=[marking], **OPEN) as queue,
    ):
        task_id = await create_task(queue, targetUrl=f"{provider.url}/start?key=secret", headers={"x-own": "1"})
        await queue.reaches(task_id, "COMPLETED")
        await eventually(lambda: marking.attempts)
    assert [(call.kind, call.request_id, call.number, call.is_named) for call in marking.calls] == [
        (CallKind.TARGET, task_id, 1, True),
        (CallKind.TARGET, task_id, 2, False),
    ]
    assert [call.status for call in marking.calls] == [307, 200]
    assert [call.headers["x-mark"] for call in provider.calls] == ["call", "call"]
    assert dict(marking.submissions[0].caller)[b"x-caller"] == b"yes"
    assert b"x-caller" not in dict(marking.submissions[0].job.request.headers)
    assert "secret" not in repr(marking.calls)


@pytest.mark.usefixtures("soon")
async def test_a_poll_is_a_call_with_the_trace_of_the_attempt(
    application: Application, marking: Marking, database: Path
) -> None:
    def respond(call: Call) -> Reply:
        return STARTED if call.method == "POST" else Reply(200, b'{"id": "p1", "status": "succeeded", "output": []}')

    async with (
        providing(respond) as provider,
        serving(application.app, database, observers=[marking], **OPEN) as queue,
    ):
        polls = {"urlTemplate": "/{startResult.body.id}", "statusPath": "status", "doneValues": ["succeeded"], "failValues": []}
        task_id = await create_task(queue, targetUrl=f"{provider.url}/start", pollConfig={**polls, "interval": 0.1})
        await queue.reaches(task_id, "COMPLETED")
    target, poll = marking.calls
    assert (target.kind, target.trace) == (CallKind.TARGET, None)
    assert (poll.kind, poll.request_id, poll.number, poll.method, poll.is_named) == (CallKind.POLL, task_id, 1, "GET", True)
    assert (poll.trace, poll.is_at_once, poll.status) == ("trace of attempt 1", False, 200)


async def test_a_callback_has_the_trace_of_the_attempt_and_the_headers_of_the_caller(marking: Marking, database: Path) -> None:
    urls: list[str] = []

    async def start(request: Request) -> Response:
        urls.append(str(current_job.callback_url))
        return JSONResponse({}, 202)

    app = Starlette(routes=[Route("/start", start)])
    async with serving(app, database, observers=[marking]) as queue:
        request_id = await queue.submit("GET", "/start")
        await eventually(lambda: marking.attempts)
        await queue.client.post(urls[0], json={"status": "OK"}, headers={"x-caller": "yes"})
        await queue.reaches(request_id, "COMPLETED")
    (callback,) = marking.callbacks
    assert (callback.channel, callback.request_id, callback.trace) == ("callback", request_id, "trace of attempt 1")
    assert dict(callback.caller)[b"x-caller"] == b"yes"


async def test_what_clients_and_operators_do_is_an_action(application: Application, marking: Marking, database: Path) -> None:
    options: Any = {"observers": [marking], "min_free_disk": 0, "outbound_allow": ["127.0.0.1"]}
    queue = QueueMiddleware(application.app, database=database, **options)
    async with receiving() as receiver, connected(queue) as client:
        ended = await client.submit("POST", "/show", json={}, params={"fal_webhook": receiver.url})
        await client.reaches(ended, "COMPLETED")
        await client.cancel(ended)
        await eventually(lambda: marking.calls and marking.calls[0].status)
        await eventually(lambda: queue.deliveries(request_id=ended))
        assert await queue.redeliver(request_id=ended) == 1
        assert await queue.probe("receiver.test", operator="ann") == 0
        await queue.pause("/show", operator="ann")
        assert await queue.resume("/show", operator="ann")
    assert [(work.action, work.operator, work.count) for work in marking.actions] == [
        (Action.CANCEL, None, 0),
        (Action.REDELIVER, "application", 1),
        (Action.PROBE, "ann", 0),
        (Action.PAUSE, "ann", 1),
        (Action.RESUME, "ann", 1),
    ]
