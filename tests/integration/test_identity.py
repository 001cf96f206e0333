"""One application, one file, one event loop: a second one is refused with a clear message, and the first continues unharmed."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from queue_middleware import QueueMiddleware
from queue_middleware.errors import NotRunning, StoreError
from queue_middleware.stores.sqlite import files
from tests.support.queue_client import DEADLINE, Queue, client_of, connected, eventually, serving, stored_jobs
from tests.support.raw_asgi import Lifespan, Message, Receive, Send, http_only, respond

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns in favor of a successor of httpx
    from starlette.testclient import TestClient


@http_only
async def hello(scope: Message, receive: Receive, send: Send) -> None:
    await respond(send, b"hello from " + scope["path"].encode())


@http_only
async def other(scope: Message, receive: Receive, send: Send) -> None:
    await respond(send, b"this is another application", 404)


@pytest.fixture
def unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUEUE_NAME")


async def started(app: Any) -> Message:
    """The application's reply to the startup of the lifespan."""
    lifespan = Lifespan(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifespan.run)
        messages = await lifespan.startup()
        tasks.cancel_scope.cancel()
    assert messages is not None
    return messages


# --- one application


async def test_another_application_is_refused_at_startup_and_nothing_is_changed(database: Path) -> None:
    async with serving(hello, database, name="shop") as shop:
        request_id = await shop.submit("GET", "/x")
        reply = await started(QueueMiddleware(other, database=database, name="admin", min_free_disk=0))
        assert reply["type"] == "lifespan.startup.failed"
        assert "belongs to the application 'shop', and this is the application 'admin'" in reply["message"]
        assert (await shop.response(request_id)).text == "hello from /x"
    with pytest.raises(StoreError, match=r"database='admin\.sqlite3'"):
        await QueueMiddleware(other, database=database, name="admin", min_free_disk=0).running().__aenter__()
    async with serving(hello, database, name="shop") as again:
        assert (await again.response(request_id)).text == "hello from /x"
    assert stored_jobs(database) == 1


async def test_two_applications_of_one_module_may_not_share_a_file(database: Path, unnamed: None) -> None:
    """`Mount("/a", QueueMiddleware(a)), Mount("/b", QueueMiddleware(b))`: only their names could distinguish them."""
    one = QueueMiddleware(hello, database=database, min_free_disk=0)
    two = QueueMiddleware(other, database=database, min_free_disk=0)
    same = QueueMiddleware(hello, database=database, min_free_disk=0)
    async with one.running(), same.running(), client_of(one) as client:
        with pytest.raises(StoreError, match=f"another application of this process uses the database {database}"):
            await two.running().__aenter__()
        assert (await Queue(client).run("GET", "/x")).text == "hello from /x"
    async with two.running():
        pass


async def test_the_startup_message_names_the_application_and_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real.sqlite3")
    with caplog.at_level(logging.INFO, "queue_middleware"):
        async with serving(hello, tmp_path / "link", name="shop"):
            pass
    real = os.path.realpath(tmp_path / "real.sqlite3")
    assert f"queue started: {real} of the application 'shop', concurrency 8" in caplog.messages


# --- one file


async def test_a_relative_path_is_resolved_at_construction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    wrapped = QueueMiddleware(hello, database="queue.sqlite3", min_free_disk=0)
    monkeypatch.chdir(tmp_path / "there")
    async with wrapped.running():
        assert (tmp_path / "here" / "queue.sqlite3").exists()
    assert list((tmp_path / "there").iterdir()) == []


async def test_a_file_with_two_names_has_one_set_of_companions(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    for release in ("release1", "release2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "queue.sqlite3").symlink_to("../shared/queue.sqlite3")
    async with (
        serving(hello, tmp_path / "release1" / "queue.sqlite3") as one,
        serving(hello, tmp_path / "release2" / "queue.sqlite3") as two,
    ):
        assert (await two.response(await one.submit("GET", "/x"))).text == "hello from /x"
        keys = [(await queue.client.get("/fal/queue/.well-known/jwks.json")).json() for queue in (one, two)]
        assert keys[0] == keys[1]
        assert len(list(tmp_path.rglob("*.alive-*"))) == 2
    assert {path.parent.name for path in tmp_path.rglob("*.sqlite3.*")} == {"shared"}


async def test_the_startup_message_is_logged_once_for_all_processes(
    database: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.sqlite3, "sqlite_version_info", (3, 40, 1))
    monkeypatch.setattr(files.sqlite3, "sqlite_version", "3.40.1")
    monkeypatch.setenv("QUEUE_CONCURENCY", "1")
    monkeypatch.setenv("QUEUE_URL", "https://elsewhere.example")
    database.chmod(0o640)

    async def like_django(scope: Message, receive: Receive, send: Send) -> None:
        raise ValueError("Django can only handle ASGI/HTTP connections, not lifespan.")

    with caplog.at_level(logging.INFO, "queue_middleware"):
        async with serving(like_django, database), serving(like_django, database), serving(like_django, database):
            pass
    messages = [(record.levelname, record.getMessage()) for record in caplog.records if "queue st" not in record.getMessage()]
    assert all(text.startswith("queue_middleware: ") for _, text in messages)
    assert sorted((level, [part for part in _PARTS if part in text]) for level, text in messages) == [
        ("INFO", ["QUEUE_URL is not an option"]),
        ("INFO", ["SQLite 3.40.1 has a defect"]),
        ("WARNING", ["QUEUE_CONCURENCY is not an option", "did you mean QUEUE_CONCURRENCY?"]),
        ("WARNING", ["chmod 600"]),
        ("WARNING", ["seems to have no lifespan"]),
    ]


_PARTS = (
    "QUEUE_URL is not an option",
    "SQLite 3.40.1 has a defect",
    "QUEUE_CONCURENCY is not an option",
    "did you mean QUEUE_CONCURRENCY?",
    "seems to have no lifespan",
    "chmod 600",
)


# --- one event loop


@contextmanager
def in_a_thread(app: Any) -> Iterator[tuple[Any, asyncio.AbstractEventLoop]]:
    """A server in a separate thread: its client and its event loop."""
    started: Any = threading.Event()
    serving_: dict[str, Any] = {}

    async def serve() -> None:
        stop = serving_["stop"] = asyncio.Event()
        async with connected(app) as queue:
            serving_.update(queue=queue, loop=asyncio.get_running_loop())
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(DEADLINE)
        yield serving_["queue"], serving_["loop"]
    finally:
        serving_["loop"].call_soon_threadsafe(serving_["stop"].set)
        thread.join(DEADLINE)
        assert not thread.is_alive()


async def test_a_second_event_loop_is_refused_and_the_first_goes_on(database: Path) -> None:
    app = QueueMiddleware(hello, database=database, min_free_disk=0)
    with in_a_thread(app) as (first, loop):

        def there(coroutine: Any) -> Any:
            return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))

        with pytest.raises(NotRunning, match="runs in the event loop of another thread"):
            await app.running().__aenter__()
        # In a thread without the context variable that says that this is asyncio.
        enter = partial(anyio.run, app.running().__aenter__, backend="trio")
        with pytest.raises(NotRunning, match="runs in the event loop of another thread"):
            await asyncio.get_running_loop().run_in_executor(None, enter)
        reply = await started(app)
        assert reply["type"] == "lifespan.startup.failed"
        assert "runs in the event loop of another thread" in reply["message"]
        async with client_of(app) as client:
            refused = await client.post("/fal/queue/submit/x")
            assert (refused.status_code, refused.json()["detail"][:10]) == (503, "This queue")
            assert (await client.get("/x")).text == "hello from /x"
        assert (await there(first.run("GET", "/x"))).text == "hello from /x"
    async with app.running(), client_of(app) as client:  # the first has ended
        assert (await Queue(client).run("GET", "/y")).text == "hello from /y"


# --- event loops other than asyncio


def make_app(events: list[str]) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        events.append("up")
        yield {"model": "loaded"}
        events.append("down")

    async def page(request: Request) -> Response:
        return PlainTextResponse(f"hello, {request.state.model}")

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    return Starlette(routes=[Route("/", page), WebSocketRoute("/ws", echo)], lifespan=lifespan)


def test_under_trio_the_application_works_and_the_queue_reports_why_it_does_not(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[str] = []
    app = QueueMiddleware(make_app(events), database=database, min_free_disk=0)
    with TestClient(app, backend="trio") as client:
        assert events == ["up"]
        assert client.get("/").text == "hello, loaded"
        with client.websocket_connect("/ws") as websocket:
            websocket.send_text("hello")
            assert websocket.receive_text() == "hello"
        for method, path, field in [
            ("POST", "/fal/queue/submit/", "detail"),
            ("GET", "/fal/queue/requests/0192d3b5-0000-7000-8000-000000000000/status/stream", "detail"),
            ("POST", "/fal/queue/v1/tasks", "error"),
        ]:
            refused = client.request(method, path)
            assert refused.status_code == 503
            assert "The queue needs asyncio" in refused.json()[field]
        with pytest.raises(NotRunning, match="needs asyncio"):
            anyio.run(app.counts, backend="trio")
    assert events == ["up", "down"]
    assert [record.levelname for record in caplog.records if "The queue needs asyncio" in record.getMessage()] == ["WARNING"]
    with TestClient(app) as client:  # under asyncio the same application runs
        assert client.post("/fal/queue/submit/").status_code == 200


def test_starting_the_queue_explicitly_under_trio_fails(database: Path) -> None:
    app = QueueMiddleware(hello, database=database, min_free_disk=0)

    async def main() -> int:
        async with app.running(), client_of(app) as client:
            return (await client.post("/fal/queue/submit/x")).status_code

    assert anyio.run(main, backend="trio") == 503


# --- interrupts


async def test_an_interrupt_while_it_drains_ends_the_wait(
    database: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "queue_middleware.runtime.shutdown.signal.getsignal", lambda number: None
    )  # the signal handlers of the test process stay
    inside = asyncio.Event()

    @http_only
    async def never(scope: Message, receive: Receive, send: Send) -> None:
        inside.set()
        await asyncio.Event().wait()

    app = QueueMiddleware(never, database=database, min_free_disk=0, shutdown_timeout=600)
    running = app.running()
    await running.__aenter__()
    async with client_of(app) as client:
        request_id = await Queue(client).submit("GET", "/x")
    await inside.wait()
    stopping = asyncio.create_task(running.__aexit__(None, None, None))
    text = (
        "queue stopping: waiting at most 600 s for 1 running request; what has not ended by then is repeated after the restart"
    )
    await eventually(lambda: text in caplog.messages)
    assert not stopping.done()
    app._runtime.services.hurry()
    async with asyncio.timeout(5):
        await stopping
    async with serving(hello, database) as queue:
        assert (await queue.response(request_id)).text == "hello from /x"
    assert stored_jobs(database, "attempt = 1") == 1
