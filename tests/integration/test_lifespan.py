"""The queue starts and stops with the application, however the two are combined, and does not affect anything else."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from blockbuster import blockbuster_ctx
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware, current_job
from queue_middleware.errors import StoreError
from tests.support.queue_client import Queue, client_of, connected, eventually, mounting, serving
from tests.support.raw_asgi import App, Lifespan, Message, RawResponse, Receive, Send, call, http_only, http_scope, respond
from tests.support.threads import all_threads_busy
from tests.support.webhook_receiver import receiving


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The path of a database that does not exist yet."""
    return tmp_path / "queue.sqlite3"


@http_only
async def hello(scope: Message, receive: Receive, send: Send) -> None:
    await respond(send, b"hello from " + scope["path"].encode())


@asynccontextmanager
async def lifespan_of(app: App) -> AsyncIterator[Lifespan]:
    """Run the lifespan protocol by hand. What is still open at the end fails the test instead of blocking it."""
    lifespan = Lifespan(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifespan.run)
        yield lifespan
        tasks.cancel_scope.cancel()


# --- construction


async def test_nothing_is_opened_before_the_lifespan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers import and construct the application before they fork; files opened by then would be shared with the children."""
    monkeypatch.chdir(tmp_path)
    threads = set(threading.enumerate())
    wrapped = QueueMiddleware(hello)
    assert (await call(wrapped, http_scope("GET", b"/elsewhere"))).body == b"hello from /elsewhere"
    assert (await call(wrapped, http_scope("POST", b"/fal/queue/submit/x"))).status == 503
    assert list(tmp_path.iterdir()) == []
    assert set(threading.enumerate()) <= threads


async def test_everything_is_closed_after_the_lifespan(database: Path) -> None:
    threads = set(threading.enumerate())
    async with serving(hello, database) as queue:
        assert (await queue.run("GET", "/x")).text == "hello from /x"
    # The last checkpoint removed the write-ahead log: no process has the file open.
    assert not database.with_name("queue.sqlite3-wal").exists()
    await eventually(lambda: {thread for thread in threading.enumerate() if thread.name.startswith("queue")} <= threads)


async def test_webhooks_of_jobs_that_end_during_shutdown_are_still_sent(database: Path) -> None:
    begun: list[bytes] = []
    delivered = asyncio.Event()

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        begun.append(scope["raw_path"])
        while len(begun) < 2:
            await asyncio.sleep(0)
        await anyio.wait_all_tasks_blocked()  # the queue is stopping
        if scope["raw_path"] == b"/slow":
            await eventually(lambda: receiver.arrived, 10)
            delivered.set()
        await respond(send)

    wrapped = QueueMiddleware(app, database=database, min_free_disk=0, outbound_allow="127.0.0.1")
    async with receiving() as receiver:
        async with wrapped.running(), client_of(wrapped) as client:
            queue = Queue(client)
            await queue.submit("POST", "/slow")
            await queue.submit("POST", f"/quick?fal_webhook={receiver.url}/done")
            await eventually(lambda: len(begun) == 2)
        assert delivered.is_set()


async def test_busy_threads_of_the_application_do_not_delay_the_shutdown(database: Path) -> None:
    """Handlers may occupy all threads of the event loop: the queue still cleans up, responds and stops."""
    wrapped = QueueMiddleware(hello, database=database, min_free_disk=0)
    with all_threads_busy():
        with anyio.fail_after(10):
            async with wrapped.running(), client_of(wrapped) as client:
                queue = Queue(client)
                assert (await client.get("/fal/queue/.well-known/jwks.json")).status_code == 200
                assert (await queue.run("GET", "/x")).text == "hello from /x"


async def test_a_start_during_the_shutdown_waits_for_its_end(database: Path) -> None:
    wrapped = QueueMiddleware(hello, database=database, min_free_disk=0)
    async with AsyncExitStack() as first:
        await first.enter_async_context(wrapped.running())
        async with asyncio.TaskGroup() as group:
            group.create_task(first.pop_all().aclose())
            await asyncio.sleep(0)
            async with wrapped.running(), wrapped.running(), client_of(wrapped) as client:
                assert (await Queue(client).run("GET", "/x")).text == "hello from /x"


async def test_a_failed_start_does_not_stop_a_queue_that_was_started_since(tmp_path: Path) -> None:
    (tmp_path / "folder").touch()
    wrapped = QueueMiddleware(hello, database=tmp_path / "folder" / "queue.sqlite3", min_free_disk=0)

    async def fail() -> None:
        with pytest.raises(StoreError):
            await wrapped.running().__aenter__()

    async def try_again() -> None:
        await fail()
        (tmp_path / "folder").unlink()
        (tmp_path / "folder").mkdir()
        async with wrapped.running(), client_of(wrapped) as client:
            await others
            await anyio.wait_all_tasks_blocked()
            assert (await Queue(client).run("GET", "/x")).text == "hello from /x"

    trying = asyncio.create_task(try_again())
    others = asyncio.create_task(fail())
    await trying


async def test_a_queue_whose_start_was_cancelled_can_be_started(database: Path) -> None:
    wrapped = QueueMiddleware(hello, database=database, min_free_disk=0)
    starting = asyncio.create_task(wrapped.running().__aenter__())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with wrapped.running(), client_of(wrapped) as client:
        assert (await Queue(client).run("GET", "/x")).text == "hello from /x"


async def test_stored_jobs_survive_the_lifespan(database: Path) -> None:
    async with serving(hello, database) as queue:
        request_id = await queue.submit("GET", "/x")
        await queue.reaches(request_id, "COMPLETED")
    async with serving(hello, database) as queue:
        assert (await queue.response(request_id)).text == "hello from /x"


# --- wrapping the application's lifespan


async def test_the_application_starts_before_the_queue_and_stops_after_it(database: Path) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        events.append(f"application up, queue there: {database.exists()}")
        yield
        events.append("application down")

    async def endpoint(request: Request) -> Response:
        try:
            await anyio.sleep_forever()
        finally:
            events.append("replay ended")

    app = Starlette(routes=[Route("/", endpoint)], lifespan=lifespan)
    async with serving(app, database, shutdown_timeout=0) as queue:
        assert database.exists()
        await queue.reaches(await queue.submit("GET", "/"), "IN_PROGRESS")
    assert events == ["application up, queue there: False", "replay ended", "application down"]


async def test_attempts_interrupted_by_shutdown_are_handed_back_uncharged(database: Path) -> None:
    seen: list[str | None] = []
    gate = anyio.Event()

    async def endpoint(request: Request) -> Response:
        seen.append(request.headers.get("x-fal-attempt"))
        await gate.wait()
        return PlainTextResponse("done at last")

    app = Starlette(routes=[Route("/", endpoint)])
    async with serving(app, database, shutdown_timeout=0) as queue:
        request_id = await queue.submit("GET", "/")
        await eventually(lambda: seen)
    gate.set()
    async with serving(app, database) as queue:
        assert (await queue.response(request_id)).text == "done at last"
    assert seen == [None, None]


async def test_shutdown_waits_for_running_work(database: Path) -> None:
    gate, started = anyio.Event(), anyio.Event()

    async def endpoint(request: Request) -> Response:
        started.set()
        await gate.wait()
        return PlainTextResponse("done in time")

    wrapped = QueueMiddleware(Starlette(routes=[Route("/", endpoint)]), database=database, min_free_disk=0)
    async with lifespan_of(wrapped) as lifespan:
        assert await lifespan.startup() == {"type": "lifespan.startup.complete"}
        async with client_of(wrapped) as client:
            request_id = await Queue(client).submit("GET", "/")
            await started.wait()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lifespan.shutdown)
                refused = await eventually(lambda: _refused(client))
                assert "retry-after" in refused.headers
                gate.set()
    async with serving(hello, database) as queue:
        assert (await queue.response(request_id)).text == "done in time"


async def _refused(client: Any) -> Any:
    """The response to a submission if it was refused, else None."""
    submitted = await client.post("/fal/queue/submit/")
    return submitted if submitted.status_code == 503 else None


def raising(error: Exception) -> App:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise error
        await hello(scope, receive, send)

    return app


async def returning(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await hello(scope, receive, send)


async def listening_first(scope: Message, receive: Receive, send: Send) -> None:
    """Receives the startup message and then raises, because it does not support lifespans."""
    if scope["type"] == "lifespan":
        await receive()
        raise NotImplementedError
    await hello(scope, receive, send)


@pytest.mark.parametrize(
    "app",
    [raising(ValueError("Django can only handle ASGI/HTTP connections, not lifespan.")), raising(KeyError("path")), returning,
     listening_first],
    ids=["like-django", "careless", "returning", "listening-first"],
)  # fmt: skip
async def test_the_queue_starts_with_an_application_without_lifespan(database: Path, app: App) -> None:
    async with lifespan_of(QueueMiddleware(app, database=database, min_free_disk=0)) as lifespan:
        assert await lifespan.startup() == {"type": "lifespan.startup.complete"}
        assert database.exists()
        assert await lifespan.shutdown() == {"type": "lifespan.shutdown.complete"}
        assert lifespan.error is None


async def test_a_failed_startup_is_forwarded_and_the_queue_is_not_started(database: Path) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no model on this machine"})

    async with lifespan_of(QueueMiddleware(app, database=database)) as lifespan:
        assert await lifespan.startup() == {"type": "lifespan.startup.failed", "message": "no model on this machine"}
    assert not database.exists()


async def test_the_message_of_a_failed_starlette_startup_is_forwarded_unchanged(database: Path) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no model on this machine")
        yield

    wrapped = QueueMiddleware(Starlette(lifespan=lifespan), database=database)
    async with lifespan_of(wrapped) as by_hand:
        reply = await by_hand.startup()
    assert reply is not None
    assert reply["type"] == "lifespan.startup.failed"
    assert "no model on this machine" in reply["message"]
    assert not database.exists()


async def test_a_failed_shutdown_is_forwarded_after_the_queue_is_closed(database: Path) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        raise RuntimeError("the pool is gone")

    async with lifespan_of(QueueMiddleware(Starlette(lifespan=lifespan), database=database, min_free_disk=0)) as by_hand:
        assert await by_hand.startup() == {"type": "lifespan.startup.complete"}
        reply = await by_hand.shutdown()
    assert reply is not None
    assert reply["type"] == "lifespan.shutdown.failed"
    assert not database.with_name("queue.sqlite3-wal").exists()


async def test_a_queue_that_cannot_open_fails_the_startup_and_stops_the_application(tmp_path: Path) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        events.append("up")
        yield
        events.append("down")

    impossible = tmp_path / "a directory"
    wrapped = QueueMiddleware(Starlette(lifespan=lifespan), database=impossible)
    impossible.mkdir()
    async with lifespan_of(wrapped) as by_hand:
        reply = await by_hand.startup()
        assert reply is not None
        assert reply["type"] == "lifespan.startup.failed"
        assert str(impossible) in reply["message"]
        await eventually(lambda: events == ["up", "down"])


async def test_a_file_that_is_not_a_database_fails_the_startup_with_a_clear_message(database: Path) -> None:
    database.write_bytes(b"this is not SQLite, this is a text file\n" * 100)
    async with lifespan_of(QueueMiddleware(hello, database=database)) as by_hand:
        reply = await by_hand.startup()
    assert reply is not None
    assert reply["type"] == "lifespan.startup.failed"
    assert str(database) in reply["message"]
    assert database.read_bytes().startswith(b"this is not SQLite")


# --- no lifespan at all


async def test_without_a_lifespan_submissions_report_it_and_the_application_works(database: Path) -> None:
    wrapped = QueueMiddleware(hello, database=database)
    async with client_of(wrapped) as client:
        for method, path in [
            ("POST", "/fal/queue/submit/x"),
            ("GET", "/fal/queue/requests/0192d3b5-0000-7000-8000-000000000000/status"),
        ]:
            refused = await client.request(method, path)
            assert refused.status_code == 503
            assert "lifespan" in refused.json()["detail"]
            assert "running()" in refused.json()["detail"]
            assert int(refused.headers["retry-after"]) > 0
        assert (await client.get("/x")).text == "hello from /x"


async def test_running_starts_the_queue_explicitly_and_repeatedly(database: Path) -> None:
    wrapped = QueueMiddleware(hello, database=database, min_free_disk=0)
    for _ in range(2):
        async with wrapped.running(), client_of(wrapped) as client:
            assert (await Queue(client).run("GET", "/x")).text == "hello from /x"
        async with client_of(wrapped) as client:
            assert (await client.post("/fal/queue/submit/x")).status_code == 503


async def test_running_stops_the_queue_if_its_block_raises(database: Path) -> None:
    wrapped = QueueMiddleware(hello, database=database, min_free_disk=0)
    with pytest.raises(ZeroDivisionError):
        async with wrapped.running():
            _ = 1 / 0
    assert (await call(wrapped, http_scope("POST", b"/fal/queue/submit/x"))).status == 503


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_queue_started_before_a_fork_refuses_submissions_in_the_child(database: Path) -> None:
    """The child has none of the queue's threads; a submission would wait forever."""
    wrapped = QueueMiddleware(hello, database=database, min_free_disk=0)
    async with wrapped.running(), client_of(wrapped) as client:
        child = os.fork()
        if child == 0:
            try:
                refused = _at_once(call(wrapped, http_scope("POST", b"/fal/queue/submit/x")))
                os._exit(0 if refused.status == 503 and b"forked" in refused.body else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (await client.post("/fal/queue/submit/x")).status_code == 200


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_queue_forked_during_its_shutdown_refuses_submissions_in_the_child(database: Path) -> None:
    """A handler that is running during the shutdown may start a process."""
    codes: list[int] = []

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        running.set()
        await anyio.wait_all_tasks_blocked()
        submission = http_scope("POST", b"/fal/queue/submit/x")
        assert b"shutting down" in (await call(wrapped, submission)).body
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if b"forked" in _at_once(call(wrapped, submission)).body else 1)
            finally:
                os._exit(2)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        await respond(send)

    running = asyncio.Event()
    wrapped = QueueMiddleware(app, database=database, min_free_disk=0)
    async with wrapped.running():
        assert (await call(wrapped, http_scope("POST", b"/fal/queue/submit/x"))).status == 200
        await running.wait()
    assert codes == [0]


def _at_once(coroutine: Coroutine[Any, Any, RawResponse]) -> RawResponse:
    """Run a coroutine that never waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


async def use_current_job(request: Request) -> Response:
    """Use everything that `current_job` offers a handler."""
    current_job.report_progress(0.5, "halfway")
    current_job.log("at work")
    logging.getLogger("app").warning("captured")
    if request.url.path == "/later":
        return JSONResponse({"callback": current_job.callback_url})
    if request.url.path == "/long":
        await asyncio.sleep(60)
    return PlainTextResponse("done")


@pytest.mark.parametrize("modules", ["queue_middleware", None], ids=["ours", "all"])
async def test_the_queue_does_not_block_the_event_loop(database: Path, modules: str | None) -> None:
    """A user's test suite may check that too, in all modules, from the start of the application to its end."""
    app = Starlette(routes=[Route("/{path:path}", use_current_job, methods=["POST"])])
    with blockbuster_ctx(modules):
        async with (
            receiving() as receiver,
            serving(app, database, outbound_allow="127.0.0.1", shutdown_timeout=0.2) as queue,
            serving(app, database, outbound_allow="127.0.0.1") as other,
        ):
            hook = f"?fal_webhook={receiver.url}&fal_webhook_events=started,progress"
            request_id = await queue.submit("POST", f"/x{hook}", content=b"x" * 600_000)
            stream = await other.client.get(f"/fal/queue/requests/{request_id}/status/stream?logs=1")
            assert "COMPLETED" in stream.text
            assert (await queue.response(request_id)).text == "done"
            assert {line["message"] for line in await queue.logs(request_id)} >= {"at work", "captured"}
            await eventually(lambda: [hook for hook in receiver.webhooks_for(request_id) if "payload" in hook.content])
            assert (await queue.client.get("/fal/queue/.well-known/jwks.json")).status_code == 200
            later = await queue.submit("POST", "/later")
            cancelled = await queue.submit("POST", "/long")
            await queue.reaches(later, "IN_PROGRESS")
            await queue.cancel(cancelled)
            await queue.cancel(later)
            await queue.submit("POST", "/long")  # still running at the end


# --- other combinations


async def test_a_mounted_sub_application(database: Path) -> None:
    """`Mount` forwards no lifespan; the outer application starts the queue."""
    inner = QueueMiddleware(hello, database=database, min_free_disk=0)
    async with connected(mounting("/sub", inner)) as outer:
        queue = Queue(outer.client, "/sub/fal/queue")
        submitted = await outer.client.post("/sub/fal/queue/submit/x")
        assert submitted.json()["status_url"].startswith("http://service.test/sub/fal/queue/")
        assert (await queue.run("GET", "/x")).text == "hello from /sub/x"
        assert (await outer.client.get(submitted.json()["status_url"])).status_code in (200, 202)
        assert (await outer.client.get("/fal/queue/requests/x/status")).status_code == 404


async def test_add_middleware(database: Path) -> None:
    """Middleware inside the queue sees the replay; middleware outside sees only the submission."""
    app, outside = FastAPI(), []

    @app.get("/hello")
    async def endpoint(request: Request) -> Response:
        return JSONResponse({"path": request.url.path, "stamped": request.headers.get("x-fal-request-id") is not None})

    app.add_middleware(QueueMiddleware, database=database, min_free_disk=0)

    @app.middleware("http")
    async def look(request: Request, call_next: Callable[[Request], Any]) -> Any:
        outside.append(request.url.path.split("/")[-1])
        return await call_next(request)

    async with connected(app) as queue:
        assert (await queue.run("GET", "/hello")).json() == {"path": "/hello", "stamped": True}
        assert outside.count("hello") == 1
        assert (await queue.client.get("/hello")).json() == {"path": "/hello", "stamped": False}


async def test_two_queues_in_one_process_are_independent(tmp_path: Path) -> None:
    async with (
        serving(hello, tmp_path / "one.sqlite3", concurrency=1) as one,
        serving(hello, tmp_path / "two.sqlite3", concurrency=1) as two,
    ):
        in_one, in_two = await one.submit("GET", "/one"), await two.submit("GET", "/two")
        assert (await one.response(in_one)).text == "hello from /one"
        assert (await two.response(in_two)).text == "hello from /two"
        foreign = await two.client.get(f"/fal/queue/requests/{in_one}/status")
        assert foreign.status_code == 404


async def test_two_queues_around_one_application_with_separate_prefixes(tmp_path: Path) -> None:
    inner = QueueMiddleware(hello, database=tmp_path / "inner.sqlite3", prefix="/inner", min_free_disk=0)
    outer = QueueMiddleware(inner, database=tmp_path / "outer.sqlite3", prefix="/outer", min_free_disk=0)
    async with connected(outer) as both:
        assert (await Queue(both.client, "/inner").run("GET", "/x")).text == "hello from /x"
        assert (await Queue(both.client, "/outer").run("GET", "/x")).text == "hello from /x"
        # A submission to the inner queue may itself be queued by the outer one.
        nested = (await Queue(both.client, "/outer").run("POST", "/inner/submit/x")).json()["request_id"]
        assert (await Queue(both.client, "/inner").response(nested)).text == "hello from /x"


async def test_two_queues_of_one_application_share_one_file(database: Path) -> None:
    async with serving(hello, database) as one, serving(hello, database) as two:
        ids = [await queue.submit("GET", f"/{number}") for number, queue in enumerate([one, two] * 5)]
        for number, (request_id, reader) in enumerate(zip(ids, [two, one] * 5, strict=True)):
            assert (await reader.response(request_id)).text == f"hello from /{number}"


# --- other paths and scopes


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/fal",
        "/fal/queue2/submit/x",
        "/fal/queued",
        "/x/fal/queue/submit/x",
        "/fal/Queue/submit/x",
        "//fal/queue/submit/x",
    ],
)
async def test_other_paths_reach_the_application_unchanged(database: Path, path: str) -> None:
    seen: list[tuple[Any, ...]] = []

    async def app(*channel: Any) -> None:
        seen.append(channel)

    async with lifespan_of(wrapped := QueueMiddleware(app, database=database, min_free_disk=0)) as lifespan:
        await lifespan.startup()
        seen.clear()
        scope, receive, send = http_scope("GET", path.encode()), _never, _never
        before = dict(scope)
        await wrapped(scope, receive, send)
        assert [tuple(map(id, channel)) for channel in seen] == [(id(scope), id(receive), id(send))]
        assert scope == before
        await lifespan.shutdown()


@pytest.mark.parametrize("path", ["/ws", "/fal/queue/submit/ws", "/fal/queue/requests/x/status"])
async def test_websockets_reach_the_application_unchanged(database: Path, path: str) -> None:
    """Under the prefix too: the queue handles HTTP only."""
    seen: list[tuple[Any, ...]] = []

    async def app(*channel: Any) -> None:
        seen.append(channel)

    wrapped = QueueMiddleware(app, database=database, min_free_disk=0)
    async with wrapped.running():
        scope = {"type": "websocket", "path": path, "raw_path": path.encode(), "headers": [], "query_string": b""}
        await wrapped(scope, _never, _never)
        assert [tuple(map(id, channel)) for channel in seen] == [(id(scope), id(_never), id(_never))]


async def _never(*_: Any) -> Any:
    raise AssertionError("only the application may read or write on this channel")
