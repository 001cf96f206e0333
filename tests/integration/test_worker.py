"""How the worker behaves around an application: order, slots, repeats, time limits, outages, and other processes' wishes."""

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

from queue_middleware import QueueMiddleware, current_job
from queue_middleware.errors import StoreBusy
from queue_middleware.events import AttemptFailed, ClaimLost, Finished, ServiceError, SlotStuck
from queue_middleware.jobs.models import Claim, ErrorType
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.worker import executor
from queue_middleware.worker.job_context import active_job
from queue_middleware.worker.worker import Worker
from tests.support.clock import ManualClock
from tests.support.doubles import Memory
from tests.support.leases import lease_passes
from tests.support.queue_client import client_of, connected, eventually, serving, stored_jobs
from tests.support.raw_asgi import Message, Receive, Send, answer, http_only


class Gate:
    """Handlers that wait at a gate, and who is in front of it."""

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


async def test_no_more_at_once_than_the_option_says(database: Path) -> None:
    gate = Gate()
    async with serving(gate.app, database, concurrency=3) as queue:
        ids = [await queue.submit("POST", f"/{number}") for number in range(10)]
        await eventually(lambda: len(gate.inside) == 3)
        positions = [(await queue.status(request_id)).get("queue_position") for request_id in ids]
        assert positions == [None, None, None, 0, 1, 2, 3, 4, 5, 6]
        gate.open.set()
        assert [(await queue.response(request_id)).text for request_id in ids] == [str(number) for number in range(10)]
        assert gate.most == 3


async def test_a_claim_on_its_way_leaves_slots_to_those_who_come(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would wait for the next one, those who come meanwhile for the one after that, and so on for ever."""
    claiming, go_on = asyncio.Event(), asyncio.Event()
    claim = SQLiteStore.claim

    async def slow(self: SQLiteStore, limit: int) -> list[Claim]:
        claiming.set()
        await go_on.wait()
        return await claim(self, limit)

    monkeypatch.setattr(SQLiteStore, "claim", slow)
    gate = Gate()
    async with serving(gate.app, database, concurrency=2) as queue:
        await asyncio.wait_for(claiming.wait(), 10)
        await queue.submit("POST", "/x")
        await eventually(lambda: gate.inside == ["x"])
        gate.open.set()
        go_on.set()


async def test_a_worker_that_is_begun_again_has_all_its_slots(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a defect that nobody foresaw, met in the moment in which a request was to begin."""
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
    async with serving(gate.app, database, concurrency=1, lease=0.5) as queue:
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
    memory = Memory()
    app = QueueMiddleware(
        Gate().app, database=database, min_free_disk=0, request_timeout=0.1, max_attempts=1, observers=[memory]
    )
    async with connected(app) as queue:
        assert (await queue.run("GET", "/x")).status_code == 504
    assert [(event.where, type(event.error)) for event in memory.of(ServiceError)] == [("deadlines", ZeroDivisionError)]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("queue_middleware.worker.completer.retry_line", 503),
        ("queue_middleware.worker.task_session.decide_wait", 202),
        ("queue_middleware.stores.common.job_store.ended", 200),
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
    memory = Memory()
    app = QueueMiddleware(
        Starlette(routes=[Route("/", work)]), database=database, min_free_disk=0, observers=[memory], on_crash="fail", lease=0.5
    )
    async with connected(app) as queue:
        assert (await queue.run("GET", "/")).status_code == 503
        assert app._runtime.services.worker.tokens() == []
    assert [(event.where, type(event.error)) for event in memory.of(ServiceError)] == [("attempt", ZeroDivisionError)]
    assert [event.error for event in memory.of(Finished)] == [ErrorType.RUNNER_DISCONNECTED]


async def test_an_attempt_that_was_given_up_is_forgotten_when_it_ends(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "BACKGROUND_LIMIT", 0.0)
    over = asyncio.Event()
    jobs: list[weakref.ref[Any]] = []

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        jobs.append(weakref.ref(active_job()))
        await answer(send)
        await over.wait()

    memory = Memory()
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


async def test_a_repeated_answer_is_the_last_one(database: Path) -> None:
    ear = Memory()
    attempts: list[int | None] = []

    async def moody(request: Request) -> Response:
        attempts.append(current_job.attempt)
        if len(attempts) < 3:
            return PlainTextResponse("not yet", 503, headers={"retry-after": "0"})
        return PlainTextResponse("now")

    app = Starlette(routes=[Route("/", moody)])
    async with connected(QueueMiddleware(app, database=database, min_free_disk=0, observers=[ear])) as queue:
        answer = await queue.run("GET", "/")
        assert (answer.status_code, answer.text, attempts) == (200, "now", [1, 2, 3])
        assert [(event.attempt, event.error, event.retry_in) for event in ear.of(AttemptFailed)] == [
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
async def test_how_often_is_the_submitters_choice(database: Path, headers: dict[str, str], calls: int) -> None:
    called = 0

    async def never(request: Request) -> Response:
        nonlocal called
        called += 1
        return PlainTextResponse("no", 503, headers={"retry-after": "0"})

    async with serving(Starlette(routes=[Route("/", never)]), database) as queue:
        answer = await queue.run("GET", "/", headers=headers)
        assert (answer.status_code, answer.text, called) == (503, "no", calls)


async def test_an_attempt_that_takes_too_long_is_ended_and_repeated(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_middleware.worker.completer.exponential", lambda attempt: 0.0)
    tidied: list[int | None] = []

    async def hang(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            tidied.append(current_job.attempt)
        return Response()

    async with serving(Starlette(routes=[Route("/", hang)]), database, request_timeout=0.05, max_attempts=2) as queue:
        answer = await queue.run("GET", "/")
        assert answer.status_code == 504
        assert answer.json() == {"detail": "the attempt took longer than 0.05 s", "error_type": "request_timeout"}
        assert answer.headers["x-fal-error-type"] == "request_timeout"
        assert "x-fal-request-timeout-type" not in answer.headers
        assert tidied == [1, 2]


async def test_a_request_that_does_not_start_in_time_fails_with_504_for_the_user(database: Path) -> None:
    gate = Gate()
    async with serving(gate.app, database, concurrency=1) as queue:
        await queue.submit("GET", "/first")
        await eventually(lambda: gate.inside)
        late = await queue.submit("GET", "/late", headers={"x-fal-request-start-timeout": "0.2"})
        answer = await queue.response(late)
        assert (answer.status_code, answer.headers["x-fal-request-timeout-type"]) == (504, "user")
        assert answer.json()["error_type"] == "request_timeout"
        gate.open.set()


async def test_progress_is_in_the_status_and_its_last_word_stays(database: Path) -> None:
    gate = Gate()

    async def work(request: Request) -> Response:
        for step in range(50):
            current_job.report_progress(step / 100, f"step {step}")
        await asyncio.to_thread(current_job.report_progress, 0.5, "from a thread")
        return await gate.pass_through(request)

    async with serving(Starlette(routes=[Route("/{name}", work)]), database) as queue:
        request_id = await queue.submit("GET", "/x")

        async def told() -> bool:
            return (await queue.status(request_id)).get("progress") == {"fraction": 0.5, "stage": "from a thread"}

        await eventually(told)
        gate.open.set()
        await queue.response(request_id)
        assert "progress" not in await queue.status(request_id)


def test_progress_outside_a_replay_is_nothing_and_nonsense_is_refused() -> None:
    assert not current_job
    assert current_job == None  # noqa: E711 - that it compares equal is the promise
    assert (current_job.id, current_job.attempt) == (None, None)
    current_job.report_progress(0.5)
    with pytest.raises(ValueError, match="it must be from 0 to 1"):
        current_job.report_progress(40)


class Flaky(SQLiteStore):
    """Its database is out of reach for some calls."""

    outages = 0

    def complete(self, *arguments: Any) -> Any:
        if self.outages:
            self.outages -= 1
            raise StoreBusy("out of reach", 1)
        return super().complete(*arguments)


async def test_finished_work_outlives_an_outage_of_the_database(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_middleware.stores.SQLiteStore", Flaky)
    monkeypatch.setattr("queue_middleware.background.OUTAGE_PAUSE", 0.0)
    monkeypatch.setattr(Flaky, "outages", 2)
    ear = Memory()
    gate = Gate()
    gate.open.set()
    async with connected(QueueMiddleware(gate.app, database=database, min_free_disk=0, observers=[ear])) as queue:
        assert (await queue.run("GET", "/kept")).text == "kept"
        assert [event.where for event in ear.of(ServiceError)] == ["settle", "settle"]


async def test_an_outage_that_is_longer_than_background_work_may_be_costs_no_finished_work(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases can be renewed meanwhile, as on a full disk, and so they are: the result still has to be stored."""
    monkeypatch.setattr("queue_middleware.stores.SQLiteStore", Flaky)
    monkeypatch.setattr("queue_middleware.background.OUTAGE_PAUSE", 0.01)
    monkeypatch.setattr(executor, "BACKGROUND_LIMIT", 0.0)
    monkeypatch.setattr(Flaky, "outages", 10**9)
    ear = Memory()
    gate = Gate()
    gate.open.set()
    app = QueueMiddleware(gate.app, database=database, min_free_disk=0, observers=[ear], request_timeout=1, on_crash="fail")
    async with connected(app) as queue:
        request_id = await queue.submit("GET", "/kept")
        ticks = 0
        check_deadlines = Worker._check_deadlines

        def check(worker: Worker, now: float) -> None:
            nonlocal ticks
            check_deadlines(worker, now)
            ticks += bool(ear.of(ServiceError))

        monkeypatch.setattr(Worker, "_check_deadlines", check)
        await eventually(lambda: ticks > 2)
        services = app._runtime.services
        assert len(services.worker.tokens()) == 1, "its lease is no longer renewed"
        assert not ear.of(SlotStuck)
        services.stores.jobs.outages = 0  # type: ignore[attr-defined]
        assert (await queue.response(request_id)).text == "kept"


@pytest.mark.parametrize("verb", ["complete", "retry"])
async def test_an_outage_that_lasts_until_the_end_hands_the_work_back_and_reports_no_lost_lease(
    database: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def unreachable(self: SQLiteStore, *arguments: Any) -> Any:
        raise StoreBusy("out of reach", 1)

    monkeypatch.setattr(SQLiteStore, verb, unreachable)
    monkeypatch.setattr("queue_middleware.background.OUTAGE_PAUSE", 0.01)
    ear = Memory()

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("x", 200 if verb == "complete" else 503)

    inner = Starlette(routes=[Route("/", endpoint)])
    app = QueueMiddleware(inner, database=database, min_free_disk=0, observers=[ear], shutdown_timeout=0)
    async with connected(app) as queue:
        await queue.submit("GET", "/")
        await eventually(lambda: ear.of(ServiceError))
    assert stored_jobs(database, "state = 'queued'") == 1
    assert not ear.of(ClaimLost)
    assert not ear.of(Finished)


async def test_work_that_was_taken_from_us_is_stopped_and_writes_nothing(database: Path) -> None:
    ear = Memory()
    stopped = asyncio.Event()

    async def hang(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return Response()

    inner = Starlette(routes=[Route("/", hang)])
    app = QueueMiddleware(inner, database=database, min_free_disk=0, observers=[ear], on_crash="fail")
    async with connected(app) as queue:
        request_id = await queue.submit("GET", "/")
        await queue.reaches(request_id, "IN_PROGRESS")
        clock = ManualClock()
        clock.since_boot = 10**15  # for this one every lease has run out
        thief = SQLiteStore(app.settings, lease_clock=clock.boot)
        await thief.open()
        await lease_passes(thief, clock)
        await thief.rescue()
        await asyncio.wait_for(stopped.wait(), 10)
        await eventually(lambda: ear.of(ClaimLost))
        assert (await queue.response(request_id)).status_code == 503
        await thief.close()


async def test_a_cancellation_by_another_process_reaches_the_one_that_runs(database: Path) -> None:
    here, there = Gate(), Gate()
    async with serving(here.app, database, concurrency=1) as first, serving(there.app, database, concurrency=1) as second:
        request_id = await first.submit("GET", "/x")
        await eventually(lambda: here.inside or there.inside)
        assert (await second.cancel(request_id)).status_code == 202
        assert (await first.response(request_id)).status_code == 499


async def test_a_streamed_answer_is_stored_in_parts_and_read_as_a_stream(database: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(40):
            yield bytes([number]) * 50_000

    async def stream(request: Request) -> Response:
        return StreamingResponse(chunks(), media_type="application/octet-stream")

    async with serving(Starlette(routes=[Route("/", stream)]), database) as queue:
        answer = await queue.run("GET", "/")
        assert answer.content == b"".join([bytes([number]) * 50_000 for number in range(40)])
        assert "content-length" not in answer.headers
        assert stored_jobs(database, "(SELECT count(*) FROM response_chunk) >= 7") == 1


async def test_observers_hear_the_end_with_its_outcome(database: Path) -> None:
    ear = Memory()

    async def fail(request: Request) -> Response:
        raise LookupError("secret")

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await fail(Request(scope))
        raise ValueError

    async with connected(QueueMiddleware(plain, database=database, min_free_disk=0, observers=[ear])) as queue:
        request_id = await queue.submit("GET", "/")
        answer = await queue.response(request_id)
        assert answer.json() == {"detail": "the application raised LookupError", "error_type": "runner_server_error"}
        (finished,) = ear.of(Finished)
        assert finished.request_id == request_id
        assert (finished.status, finished.error) == (None, ErrorType.RUNNER_SERVER_ERROR)


async def test_what_the_application_answers_directly_is_untouched(tmp_path: Path) -> None:
    async def echo(request: Request) -> Response:
        return JSONResponse({"body": (await request.body()).decode()})

    app = QueueMiddleware(Starlette(routes=[Route("/", echo, methods=["POST"])]), database=tmp_path / "queue.sqlite3")
    async with client_of(app) as client:
        assert (await client.post("/", content=b"x")).json() == {"body": "x"}
    assert not list(tmp_path.iterdir())
