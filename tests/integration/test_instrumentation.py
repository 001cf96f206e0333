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

from queue_middleware.events import Finished
from queue_middleware.instrumentation import AttemptWork, CallKind, CallWork, Instrumentation, SubmissionWork
from queue_middleware.jobs.models import ErrorType, Failure, StoredResponse
from tests.support.queue_client import eventually, serving
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
        work.claim = work.claim.replace(request=request.replace(headers=(*headers, (MARK, b"attempt"))))
        token = active.set("attempt")
        yield
        active.reset(token)
        self.attempts.append(work)

    def call(self, work: CallWork) -> AbstractContextManager[object]:
        work.headers = (*work.headers, (MARK, b"call"))
        self.calls.append(work)
        return super().call(work)


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
            assert call.label == "completed"
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
