"""Events name how a request ended in the database, also when something other than the attempt's response decided that."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from queue_middleware import QueueMiddleware, current_job
from queue_middleware.errors import StoreBusy
from queue_middleware.events import AttemptFailed, ClaimLost, Finished, JobAwaiting
from queue_middleware.jobs.models import ErrorType
from queue_middleware.jobs.outcomes import Outcome
from queue_middleware.stores.common import requeueing
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.worker.worker import Worker
from tests.integration.test_callbacks import call_back, path_in
from tests.integration.test_tasks import Tasks
from tests.support.doubles import EventRecorder
from tests.support.queue_client import Queue, connected, eventually
from tests.support.raw_asgi import Message, Receive, Send, http_only, respond

pytestmark = pytest.mark.usefixtures("course")


class Handler:
    """An application whose calls wait until the test lets them respond."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.url = ""
        self.begun, self.respond = asyncio.Event(), asyncio.Event()
        self.reads_url = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if self.reads_url:
            self.url = current_job.callback_url or ""
        self.begun.set()
        await self.respond.wait()
        await respond(send, b"{}", self.status)


@asynccontextmanager
async def observed(database: Path, handler: Any, recorder: EventRecorder, **options: Any) -> AsyncIterator[Queue]:
    options = {"min_free_disk": 0, "shutdown_timeout": 2, "observers": [recorder], **options}
    async with connected(QueueMiddleware(http_only(handler), database=database, **options)) as queue:
        yield queue


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation is stored, and the attempt ends in another way before the worker has read that."""

    async def ignore(worker: Worker) -> None:
        return None

    monkeypatch.setattr(Worker, "_abort_revoked", ignore)


@pytest.mark.parametrize("status", [202, 500])
async def test_a_callback_that_came_during_the_attempt(database: Path, status: int) -> None:
    """It ends the request, whatever the handler responds afterwards."""
    recorder, handler = EventRecorder(), Handler(status)
    handler.reads_url = True
    async with observed(database, handler, recorder) as queue:
        request_id = await queue.submit("POST", "/start")
        await handler.begun.wait()
        await call_back(queue, path_in(handler.url), {"status": "OK", "images": []})
        handler.respond.set()
        assert (await queue.response(request_id)).status_code == 200
        (finished,) = await eventually(lambda: recorder.of(Finished))
        assert (finished.attempt, finished.status, finished.error) == (1, 200, None)


async def test_a_failure_that_was_reported_during_the_attempt(database: Path) -> None:
    recorder, handler = EventRecorder(), Handler(202)
    async with observed(database, handler, recorder) as queue:
        tasks = Tasks(queue)
        created = await tasks.create("/work", waitForSignal=True)
        await handler.begun.wait()
        await tasks.call("POST", f"/signals/{created['signalToken']}", 200, json={"status": "failed", "error": "no GPU"})
        handler.respond.set()
        await tasks.reaches(created["task"]["id"], "failed")
        (finished,) = await eventually(lambda: recorder.of(Finished))
        assert (finished.status, finished.error, finished.outcome) == (None, ErrorType.PROVIDER_FAILED, Outcome.FAILED)


async def test_a_redirect_of_a_task_that_was_to_wait(database: Path) -> None:
    recorder, handler = EventRecorder(), Handler(302)
    handler.respond.set()
    async with observed(database, handler, recorder) as queue:
        await Tasks(queue).run("/work", waitForSignal=True)
        (finished,) = await eventually(lambda: recorder.of(Finished))
        assert (finished.status, finished.error) == (None, ErrorType.RUNNER_SERVER_ERROR)


@pytest.mark.usefixtures("deaf")
async def test_a_request_that_is_to_be_cancelled_and_would_wait(database: Path) -> None:
    recorder, handler = EventRecorder(), Handler(202)
    handler.reads_url = True
    async with observed(database, handler, recorder) as queue:
        request_id = await queue.submit("POST", "/start")
        await handler.begun.wait()
        await queue.cancel(request_id)
        handler.respond.set()
        (finished,) = await eventually(lambda: recorder.of(Finished))
        assert (finished.status, finished.outcome) == (None, Outcome.CANCELLED)
        assert not recorder.of(JobAwaiting)


@pytest.mark.usefixtures("deaf")
async def test_a_request_that_is_to_be_cancelled_and_would_be_retried(database: Path) -> None:
    recorder, handler = EventRecorder(), Handler(503)
    async with observed(database, handler, recorder) as queue:
        request_id = await queue.submit("POST", "/start")
        await handler.begun.wait()
        await queue.cancel(request_id)
        handler.respond.set()
        (finished,) = await eventually(lambda: recorder.of(Finished))
        assert (finished.request_id, finished.attempt, finished.outcome) == (request_id, 1, Outcome.CANCELLED)
        assert not recorder.of(AttemptFailed)


@pytest.mark.usefixtures("deaf")
async def test_a_request_that_is_to_be_cancelled_and_would_be_handed_back(database: Path) -> None:
    recorder, handler = EventRecorder(), Handler(200)
    async with observed(database, handler, recorder, shutdown_timeout=0) as queue:
        request_id = await queue.submit("POST", "/start")
        await handler.begun.wait()
        await queue.cancel(request_id)
    (finished,) = recorder.of(Finished)
    assert (finished.request_id, finished.outcome) == (request_id, Outcome.CANCELLED)


async def test_a_request_that_was_handed_back_too_often(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeueing, "MAX_FREE_RELEASES", 0)
    recorder, handler = EventRecorder(), Handler(200)
    async with observed(database, handler, recorder, shutdown_timeout=0, max_attempts=1) as queue:
        await queue.submit("POST", "/start")
        await handler.begun.wait()
    (finished,) = recorder.of(Finished)
    assert (finished.status, finished.error) == (None, ErrorType.RUNNER_DISCONNECTED)


async def test_a_request_that_is_handed_back_has_not_finished(database: Path) -> None:
    recorder, handler = EventRecorder(), Handler(200)
    async with observed(database, handler, recorder, shutdown_timeout=0) as queue:
        await queue.submit("POST", "/start")
        await handler.begun.wait()
    assert not recorder.of(Finished)


class Chance:
    """An application, its clients and its database, all of which do by chance whatever they may do."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.urls: dict[str, str] = {}
        self.ids: list[str] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Responds, fails, hangs, or starts work for an external service."""
        kind = self.random.choice(("respond", "wait", "raise", "hang", "503"))
        if self.random.random() < 0.3:
            current_job.log("a line, so that the outcome is stored behind it")
        if kind == "wait":
            self.urls[str(current_job.id)] = urlsplit(str(current_job.callback_url)).path
        for _ in range(self.random.randrange(50)):
            await asyncio.sleep(0)
        if kind == "raise":
            raise ValueError
        if kind == "hang":
            await asyncio.Event().wait()
        await respond(send, b"{}", {"wait": 202, "503": 503}.get(kind, 200))

    async def act(self, queue: Queue) -> None:
        """Submit; perhaps cancel a request, and call one back."""
        self.ids.append(await queue.submit("POST", "/"))
        if self.random.random() < 0.3:
            await queue.cancel(self.random.choice(self.ids))
        if self.urls and self.random.random() < 0.5:
            await self.call_back(queue, self.random.choice(sorted(self.urls)))

    async def call_back(self, queue: Queue, request_id: str) -> None:
        await queue.client.post(self.urls[request_id], json={"status": self.random.choice(("OK", "ERROR"))})

    def disturb(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One write in seven does not reach the database."""
        for name in ("end", "complete", "fail", "retry", "release", "log"):
            monkeypatch.setattr(SQLiteStore, name, self._flaky(getattr(SQLiteStore, name)))

    def _flaky(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if self.random.random() < 0.15:
                raise StoreBusy("out of reach", 1)
            return method(*arguments)

        return call


@pytest.mark.usefixtures("at_once")
async def test_each_request_finishes_once_and_as_the_database_has_it(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_middleware.background.OUTAGE_PAUSE", 0.01)
    chance, recorder = Chance(1), EventRecorder()
    chance.disturb(monkeypatch)
    options = {"min_free_disk": 0, "concurrency": 8, "request_timeout": 0.2, "observers": [recorder]}
    app = QueueMiddleware(http_only(chance), database=database, **options)
    async with connected(app) as queue:
        for _ in range(40):
            await chance.act(queue)

        async def have_ended() -> bool:
            for request_id in list(chance.urls):
                await chance.call_back(queue, request_id)
            return sum((await app.counts()).outcomes.values()) == 40

        await eventually(have_ended)
        await eventually(lambda: len(recorder.of(Finished)) == 40 and not app._runtime.services.worker.tokens())
        jobs = [await app._runtime.job(request_id) for request_id in chance.ids]
    ends = {event.request_id: (event.status, event.error) for event in recorder.of(Finished)}
    assert ends == {job.request_id: (job.status, job.failure and job.failure.error_type) for job in jobs}
    assert not recorder.of(ClaimLost)
