"""Both courses of a job give the same to the client, to observers and to the application, and each is really taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from queue_middleware import QueueMiddleware, current_job
from queue_middleware.stores.sqlite.transaction import SQLiteTransaction
from tests.support.courses import take_unusual_course
from tests.support.database_template import create_empty_database
from tests.support.doubles import EventRecorder
from tests.support.queue_client import Queue, connected
from tests.support.raw_asgi import Message, Receive, Send, http_only, respond

CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/echo", {"json": {"a": 1}}),
    ("POST", "/echo", {"json": {"a": 1}, "headers": {"x-trace": "1", "connection": "x-gone", "x-gone": "1"}}),
    ("GET", "/echo?b=%20&c", {}),
    ("PUT", "/echo/%C3%A9", {"content": b"x" * (2**18 + 1)}),
    ("POST", "/status/404", {}),
    ("POST", "/status/503", {"headers": {"x-fal-no-retry": "1"}}),
    ("POST", "/large", {}),
    ("POST", "/report", {}),
    ("POST", "/raise", {}),
    ("POST", "/silent", {}),
]


async def application(scope: Message, receive: Receive, send: Send) -> None:
    body, path = b"", scope["path"]
    while (message := await receive()).get("more_body"):
        body += message["body"]
    body += message.get("body", b"")
    if path.startswith("/status/"):
        await respond(send, b"no", int(path.rpartition("/")[2]), [(b"x-a", b"1"), (b"x-a", b"2")])
    elif path == "/large":
        await respond(send, b"y" * 2**19)
    elif path == "/report":
        current_job.report_progress(0.5, "half")
        current_job.log("a line")
        await respond(send)
    elif path == "/raise":
        raise ValueError("a defect")
    elif path != "/silent":
        seen = [scope[name] for name in ("method", "path", "raw_path", "query_string", "root_path", "scheme", "headers")]
        await respond(send, repr((seen, scope["client"][0], len(body), body[:100])).encode())


async def observe(queue: Queue, call: tuple[str, str, dict[str, Any]]) -> list[Any]:
    """All that a client is given for a call, without ids and times."""
    method, target, request = call
    receipt = await queue.client.request(method, f"/fal/queue/submit{target}", **request)
    request_id = receipt.json()["request_id"]
    await queue.reaches(request_id, "COMPLETED")
    status = await queue.client.get(f"/fal/queue/requests/{request_id}/status?logs=1")
    response = await queue.client.get(f"/fal/queue/requests/{request_id}/response")
    return [same(text, request_id) for text in (shown(receipt), shown(status), shown(response))]


def shown(response: httpx.Response) -> str:
    return f"{response.status_code} {response.headers.raw!r} {response.text}"


def same(text: str, request_id: str) -> str:
    text = text.replace(request_id, "ID")
    text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+", "TIME", text)
    return re.sub(r'("inference_time": ?|content-length\', b\')[0-9.]+', r"\1NUMBER", text)


def outline(event: Any) -> tuple[Any, ...]:
    """The event without id and time."""
    values = {field: getattr(event, field) for field in event.__struct_fields__ if field not in ("request_id", "duration")}
    return type(event).__name__, *map(repr, values.values())


def below(root: str, app: QueueMiddleware) -> Any:
    """The application as a server calls it that has this root path, and puts it before the path."""

    async def server(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "root_path": root, "path": root + scope["path"], "raw_path": root.encode() + scope["raw_path"]}
        await app(scope, receive, send)

    return server


async def run(database: Path, root: str) -> tuple[list[Any], list[Any]]:
    recorder = EventRecorder()
    options: dict[str, Any] = {"min_free_disk": 0, "max_attempts": 1, "observers": [recorder]}
    app = QueueMiddleware(http_only(application), database=database, **options)
    async with connected(below(root, app)) as queue:
        results = [await observe(queue, call) for call in CALLS * 2]
    return results, [outline(event) for event in recorder.events if hasattr(event, "request_id")]


@pytest.mark.parametrize("course", ["plain"], indirect=True)
@pytest.mark.parametrize("root", ["", "/api"])
async def test_both_courses_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, course: str) -> None:
    plain, plain_events = await run(create_empty_database(tmp_path / "plain.sqlite3"), root)
    take_unusual_course(monkeypatch)
    unusual, unusual_events = await run(create_empty_database(tmp_path / "unusual.sqlite3"), root)
    for of_plain, of_unusual in zip(plain, unusual, strict=True):
        assert of_plain == of_unusual
    assert plain_events == unusual_events
    assert plain[: len(CALLS)] == plain[len(CALLS) :], "what is remembered of a call does not change the next one"


@pytest.mark.parametrize("course", ["plain", "unusual"], indirect=True)
async def test_each_course_is_taken(database: Path, course: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[str] = set()

    def recorded(call: Any) -> Any:
        def use(transaction: SQLiteTransaction, name: str, rows: Sequence[Any], *common: Any) -> Any:
            if rows:
                used.add(name)
            return call(transaction, name, rows, *common)

        return use

    monkeypatch.setattr(SQLiteTransaction, "rows", recorded(SQLiteTransaction.rows))
    monkeypatch.setattr(SQLiteTransaction, "held", recorded(SQLiteTransaction.held))
    app = QueueMiddleware(http_only(application), database=database, min_free_disk=0)
    async with connected(app) as queue:
        assert (await queue.run("POST", "/echo")).status_code == 200
    short = {"insert_started_jobs", "complete_jobs"}
    general = {"insert_jobs", "finish_jobs"}
    assert used & (short | general) == (short if course == "plain" else general)
    assert bool(app._queue._matches) is (course == "plain")
    assert bool(app._queue._fal._submit_endpoint._calls) is (course == "plain")
