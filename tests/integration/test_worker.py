"""The worker around an application: order, slots, retries, time limits, outages, and actions of other processes."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from queue_middleware import QueueMiddleware, current_job, stores
from queue_middleware.errors import StoreBusy
from queue_middleware.events import AttemptFailed, ClaimLost, Finished, ServiceError, SlotStuck
from queue_middleware.jobs.models import Claim, ErrorType
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.worker import executor
from queue_middleware.worker.job_context import active_job
from queue_middleware.worker.worker import Worker
from tests.support.clock import ManualClock
from tests.support.doubles import EventRecorder
from tests.support.leases import lease_passes
from tests.support.queue_client import client_of, connected, eventually, serving, stored_jobs
from tests.support.raw_asgi import Message, Receive, Send, http_only, respond

pytestmark = pytest.mark.usefixtures("course")


class Gate:
    """Handlers that wait at a gate, and the number of those that wait."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside: list[str] = []
        self.most = 0
        self.app = Starlette(routes=[Route("/{name}", self.pass_through, methods=["GET", "POST"])])

    async def pass_through(self, request: Request) -> Response:
        self.inside.append(request.path_params["name"])
        self.most = max(self.most, len(self.inside))
        await self.open.wait()
        self.inside.remove(request.path_params["name"])
        return PlainTextResponse(request.path_params["name"])


async def test_concurrency_limits_running_jobs(database: Path) -> None:
    gate = Gate()
    async with serving(gate.app, database, concurrency=3) as queue:
        ids = [await queue.submit("POST", f"/{number}") for number in range(10)]
        await eventually(lambda: len(gate.inside) == 3)
        positions = [(await queue.status(request_id)).get("queue_position") for request_id in ids]
        assert positions == [None, None, None, 0, 1, 2, 3, 4, 5, 6]
        gate.open.set()
        assert [(await queue.response(request_id)).text for request_id in ids] == [str(number) for number in range(10)]
        assert gate.most == 3


async def test_a_claim_in_progress_leaves_free_slots_to_new_jobs(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise new jobs would wait for the next claim, later ones for the claim after that, and so on."""
    claiming, go_on = asyncio.Event(), asyncio.Event()
    claim = SQLiteStore.claim

    async def slow(self: SQLiteStore, limit: int) -> list[Claim]:
        claiming.set()
        await go_on.wait()
        return await claim(self, limit)

    monkeypatch.setattr(SQLiteStore, "claim", slow)
    gate = Gate()
    async with serving(gate.app, database, concurrency=2, after_first_claim=False) as queue:
        await asyncio.wait_for(claiming.wait(), 10)
        await queue.submit("POST", "/x")
        await eventually(lambda: gate.inside == ["x"])
        gate.open.set()
        go_on.set()


async def test_a_restarted_worker_has_all_its_slots(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an unexpected exception at the moment when an attempt was to start."""
    monkeypatch.setattr("queue_middleware.runtime.supervisor._RESTART_PAUSE", 0.0)
    defects = 1
    claim_until_stopped = Worker._claim_until_stopped

    async def broken(self: Worker) -> None:
        nonlocal defects
        while defects:
            await asyncio.sleep(0)
            if self.tokens():
                defects -= 1
                raise ZeroDivisionError
        await claim_until_stopped(self)

    monkeypatch.setattr(Worker, "_claim_until_stopped", broken)
    gate = Gate()
    gate.open.set()
    async with serving(gate.app, database, concurrency=1, lease=0.5, after_first_claim=False) as queue:
        assert [(await queue.run("GET", f"/{number}")).text for number in range(3)] == ["0", "1", "2"]


async def test_a_defect_in_one_check_does_not_end_the_time_limits(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_deadline = executor.JobExecutor.check_deadline
    defects = 1

    def broken(attempt: executor.JobExecutor, now: float) -> None:
        nonlocal defects
        if defects:
            defects -= 1
            raise ZeroDivisionError
        check_deadline(attempt, now)

    monkeypatch.setattr(executor.JobExecutor, "check_deadline", broken)
    recorder = EventRecorder()
    app = QueueMiddleware(
        Gate().app, database=database, min_free_disk=0, request_timeout=0.1, max_attempts=1, observers=[recorder]
    )
    async with connected(app) as queue:
        assert (await queue.run("GET", "/x")).status_code == 504
    assert [(event.where, type(event.error)) for event in recorder.of(ServiceError)] == [("deadlines", ZeroDivisionError)]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("queue_middleware.worker.completer.retry_line", 503),
        ("queue_middleware.worker.task_session.decide_wait", 202),
        ("queue_middleware.stores.common.job_store.ended_attempt", 200),
    ],
)
@pytest.mark.parametrize("logs", [False, True])
async def test_a_defect_in_a_commit_gives_the_claim_up(
    database: Path, monkeypatch: pytest.MonkeyPatch, name: str, status: int, logs: bool
) -> None:
    """Otherwise the request would run for ever: its slot would stay occupied, and its lease be renewed."""

    async def work(request: Request) -> Response:
        if logs:
            current_job.log("a line")
        if status == 202:
            assert current_job.callback_url
        return PlainTextResponse("x", status)

    def broken(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(name, broken)
    recorder = EventRecorder()
    app = QueueMiddleware(
        Starlette(routes=[Route("/", work)]),
        database=database,
        min_free_disk=0,
        observers=[recorder],
        on_crash="fail",
        lease=0.5,
    )
    async with connected(app) as queue:
        assert (await queue.run("GET", "/")).status_code == 503
        assert app._runtime.services.worker.tokens() == []
    assert [(event.where, type(event.error)) for event in recorder.of(ServiceError)] == [("attempt", ZeroDivisionError)]
    assert [event.error for event in recorder.of(Finished)] == [ErrorType.RUNNER_DISCONNECTED]


async def test_an_abandoned_attempt_is_removed_when_it_ends(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "BACKGROUND_LIMIT", 0.0)
    over = asyncio.Event()
    jobs: list[weakref.ref[Any]] = []

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        jobs.append(weakref.ref(active_job()))
        await respond(send)
        await over.wait()

    memory = EventRecorder()
    wrapped = QueueMiddleware(app, database=database, min_free_disk=0, request_timeout=1, concurrency=1, observers=[memory])
    async with connected(wrapped) as queue:
        await queue.run("GET", "/")
        await eventually(lambda: memory.of(SlotStuck))
        assert jobs[0]() is not None
        over.set()
        await eventually(lambda: jobs[0]() is None)


async def test_low_priority_waits_for_all_others(database: Path) -> None:
    order: list[str] = []

    async def note(request: Request) -> Response:
        order.append(request.path_params["name"])
        return PlainTextResponse("")

    gate = Gate()
    app = Starlette(routes=[Route("/gate/{name}", gate.pass_through), Route("/{name}", note)])
    async with serving(app, database, concurrency=1) as queue:
        await queue.submit("GET", "/gate/x")
        await eventually(lambda: gate.inside)
        for name, priority in (("low", "low"), ("first", "normal"), ("second", "whatever")):
            last = await queue.submit("GET", f"/{name}", headers={"x-fal-queue-priority": priority})
        gate.open.set()
        await queue.response(last)
        await eventually(lambda: len(order) == 3)
    assert order == ["first", "second", "low"]


async def test_the_stored_response_is_that_of_the_last_attempt(database: Path) -> None:
    recorder = EventRecorder()
    attempts: list[int | None] = []

    async def moody(request: Request) -> Response:
        attempts.append(current_job.attempt)
        if len(attempts) < 3:
            return PlainTextResponse("not yet", 503, headers={"retry-after": "0"})
        return PlainTextResponse("now")

    app = Starlette(routes=[Route("/", moody)])
    async with connected(QueueMiddleware(app, database=database, min_free_disk=0, observers=[recorder])) as queue:
        response = await queue.run("GET", "/")
        assert (response.status_code, response.text, attempts) == (200, "now", [1, 2, 3])
        assert [(event.attempt, event.error, event.retry_in) for event in recorder.of(AttemptFailed)] == [
            (1, "status 503", 0.0),
            (2, "status 503", 0.0),
        ]


@pytest.mark.parametrize(
    ("headers", "calls"),
    [
        ({}, 3),
        ({"x-fal-no-retry": "1"}, 1),
        ({"x-fal-retry-config": json.dumps({"server_error": {"retries": 1}})}, 2),
        ({"x-fal-retry-config": json.dumps({"timeout": {"retries": 5}})}, 3),
    ],
)
async def test_the_submitter_can_limit_the_attempts(database: Path, headers: dict[str, str], calls: int) -> None:
    called = 0

    async def never(request: Request) -> Response:
        nonlocal called
        called += 1
        return PlainTextResponse("no", 503, headers={"retry-after": "0"})

    async with serving(Starlette(routes=[Route("/", never)]), database) as queue:
        response = await queue.run("GET", "/", headers=headers)
        assert (response.status_code, response.text, called) == (503, "no", calls)


async def test_an_attempt_that_takes_too_long_is_cancelled_and_retried(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_middleware.worker.completer.exponential", lambda attempt: 0.0)
    tidied: list[int | None] = []

    async def hang(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            tidied.append(current_job.attempt)
        return Response()

    async with serving(Starlette(routes=[Route("/", hang)]), database, request_timeout=0.05, max_attempts=2) as queue:
        response = await queue.run("GET", "/")
        assert response.status_code == 504
        assert response.json() == {"detail": "the attempt took longer than 0.05 s", "error_type": "request_timeout"}
        assert response.headers["x-fal-error-type"] == "request_timeout"
        assert "x-fal-request-timeout-type" not in response.headers
        assert tidied == [1, 2]


async def test_a_request_that_does_not_start_in_time_fails_with_504(database: Path) -> None:
    gate = Gate()
    async with serving(gate.app, database, concurrency=1) as queue:
        await queue.submit("GET", "/first")
        await eventually(lambda: gate.inside)
        late = await queue.submit("GET", "/late", headers={"x-fal-request-start-timeout": "0.2"})
        response = await queue.response(late)
        assert (response.status_code, response.headers["x-fal-request-timeout-type"]) == (504, "user")
        assert response.json()["error_type"] == "request_timeout"
        gate.open.set()


async def test_progress_is_in_the_status_and_the_last_report_is_kept(database: Path) -> None:
    gate = Gate()

    async def work(request: Request) -> Response:
        for step in range(50):
            current_job.report_progress(step / 100, f"step {step}")
        await asyncio.to_thread(current_job.report_progress, 0.5, "from a thread")
        return await gate.pass_through(request)

    async with serving(Starlette(routes=[Route("/{name}", work)]), database) as queue:
        request_id = await queue.submit("GET", "/x")

        async def reported() -> bool:
            return (await queue.status(request_id)).get("progress") == {"fraction": 0.5, "stage": "from a thread"}

        await eventually(reported)
        gate.open.set()
        await queue.response(request_id)
        assert "progress" not in await queue.status(request_id)


def test_progress_outside_a_replay_is_ignored_and_invalid_values_are_refused() -> None:
    assert not current_job
    assert current_job == None  # noqa: E711 - that it compares equal is the promise
    assert (current_job.id, current_job.attempt) == (None, None)
    current_job.report_progress(0.5)
    with pytest.raises(ValueError, match="it must be from 0 to 1"):
        current_job.report_progress(40)


class Flaky(SQLiteStore):
    """A store whose database is unavailable for some calls."""

    outages = 0

    def complete(self, *arguments: Any) -> Any:
        self._fail()
        return super().complete(*arguments)

    def end(self, *arguments: Any) -> None:
        self._fail()
        super().end(*arguments)

    def _fail(self) -> None:
        if self.outages:
            self.outages -= 1
            raise StoreBusy("out of reach", 1)


async def test_a_finished_attempt_is_stored_after_a_database_outage(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stores._STORES, "", Flaky)
    monkeypatch.setattr("queue_middleware.background.OUTAGE_PAUSE", 0.0)
    monkeypatch.setattr(Flaky, "outages", 2)
    recorder = EventRecorder()
    gate = Gate()
    gate.open.set()
    async with connected(QueueMiddleware(gate.app, database=database, min_free_disk=0, observers=[recorder])) as queue:
        assert (await queue.run("GET", "/kept")).text == "kept"
        assert [event.where for event in recorder.of(ServiceError)] == ["settle", "settle"]


async def test_an_outage_that_is_longer_than_background_work_may_be_costs_no_finished_work(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases can be renewed meanwhile, as on a full disk, and so they are: the result still has to be stored."""
    monkeypatch.setitem(stores._STORES, "", Flaky)
    monkeypatch.setattr("queue_middleware.background.OUTAGE_PAUSE", 0.01)
    monkeypatch.setattr(executor, "BACKGROUND_LIMIT", 0.0)
    monkeypatch.setattr(Flaky, "outages", 10**9)
    recorder = EventRecorder()
    gate = Gate()
    gate.open.set()
    app = QueueMiddleware(
        gate.app, database=database, min_free_disk=0, observers=[recorder], request_timeout=1, on_crash="fail"
    )
    async with connected(app) as queue:
        request_id = await queue.submit("GET", "/kept")
        ticks = 0
        check_deadlines = Worker._check_deadlines

        def check(worker: Worker, now: float) -> None:
            nonlocal ticks
            check_deadlines(worker, now)
            ticks += bool(recorder.of(ServiceError))

        monkeypatch.setattr(Worker, "_check_deadlines", check)
        await eventually(lambda: ticks > 2)
        services = app._runtime.services
        assert len(services.worker.tokens()) == 1, "its lease is no longer renewed"
        assert not recorder.of(SlotStuck)
        services.stores.jobs.outages = 0  # type: ignore[attr-defined]
        assert (await queue.response(request_id)).text == "kept"


@pytest.mark.parametrize("verb", ["complete", "retry"])
async def test_an_outage_that_lasts_until_the_end_hands_the_work_back_and_reports_no_lost_lease(
    database: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def unreachable(self: SQLiteStore, *arguments: Any) -> Any:
        raise StoreBusy("out of reach", 1)

    for name in (verb, "end"):
        monkeypatch.setattr(SQLiteStore, name, unreachable)
    monkeypatch.setattr("queue_middleware.background.OUTAGE_PAUSE", 0.01)
    recorder = EventRecorder()

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("x", 200 if verb == "complete" else 503)

    inner = Starlette(routes=[Route("/", endpoint)])
    app = QueueMiddleware(inner, database=database, min_free_disk=0, observers=[recorder], shutdown_timeout=0)
    async with connected(app) as queue:
        await queue.submit("GET", "/")
        await eventually(lambda: recorder.of(ServiceError))
    assert stored_jobs(database, "state = 'queued'") == 1
    assert not recorder.of(ClaimLost)
    assert not recorder.of(Finished)


async def test_an_attempt_whose_lease_was_lost_is_stopped_and_writes_nothing(database: Path) -> None:
    recorder = EventRecorder()
    stopped = asyncio.Event()

    async def hang(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return Response()

    inner = Starlette(routes=[Route("/", hang)])
    app = QueueMiddleware(inner, database=database, min_free_disk=0, observers=[recorder], on_crash="fail")
    async with connected(app) as queue:
        request_id = await queue.submit("GET", "/")
        await queue.reaches(request_id, "IN_PROGRESS")
        clock = ManualClock()
        clock.since_boot = 10**15  # for this queue every lease has expired
        thief = SQLiteStore(app.settings, lease_clock=clock.boot)
        await thief.open()
        await lease_passes(thief, clock)
        await thief.rescue()
        await asyncio.wait_for(stopped.wait(), 10)
        await eventually(lambda: recorder.of(ClaimLost))
        assert (await queue.response(request_id)).status_code == 503
        await thief.close()


async def test_a_cancellation_in_one_process_stops_the_attempt_in_another(database: Path) -> None:
    here, there = Gate(), Gate()
    async with serving(here.app, database, concurrency=1) as first, serving(there.app, database, concurrency=1) as second:
        request_id = await first.submit("GET", "/x")
        await eventually(lambda: here.inside or there.inside)
        assert (await second.cancel(request_id)).status_code == 202
        assert (await first.response(request_id)).status_code == 499


async def test_a_streamed_response_is_stored_and_read_in_parts(database: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(40):
            yield bytes([number]) * 50_000

    async def stream(request: Request) -> Response:
        return StreamingResponse(chunks(), media_type="application/octet-stream")

    async with serving(Starlette(routes=[Route("/", stream)]), database) as queue:
        response = await queue.run("GET", "/")
        assert response.content == b"".join([bytes([number]) * 50_000 for number in range(40)])
        assert "content-length" not in response.headers
        assert stored_jobs(database, "(SELECT count(*) FROM response_chunk) >= 7") == 1


async def test_observers_receive_the_end_with_its_outcome(database: Path) -> None:
    recorder = EventRecorder()

    async def fail(request: Request) -> Response:
        raise LookupError("secret")

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await fail(Request(scope))
        raise ValueError

    async with connected(QueueMiddleware(plain, database=database, min_free_disk=0, observers=[recorder])) as queue:
        request_id = await queue.submit("GET", "/")
        response = await queue.response(request_id)
        assert response.json() == {"detail": "the application raised LookupError", "error_type": "runner_server_error"}
        (finished,) = recorder.of(Finished)
        assert finished.request_id == request_id
        assert (finished.status, finished.error) == (None, ErrorType.RUNNER_SERVER_ERROR)


async def test_direct_responses_of_the_application_are_unchanged(tmp_path: Path) -> None:
    async def echo(request: Request) -> Response:
        return JSONResponse({"body": (await request.body()).decode()})

    app = QueueMiddleware(Starlette(routes=[Route("/", echo, methods=["POST"])]), database=tmp_path / "queue.sqlite3")
    async with client_of(app) as client:
        assert (await client.post("/", content=b"x")).json() == {"body": "x"}
    assert not list(tmp_path.iterdir())
