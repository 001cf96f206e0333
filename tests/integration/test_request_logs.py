"""Records of a real application have the request id, the attempt and the route; with `logging` and with structlog."""

from __future__ import annotations

import contextvars
import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from queue_middleware import current_job
from queue_middleware.logging import RequestFilter
from tests.meta.test_docs import ROOT, blocks, run_block
from tests.support.queue_client import serving

from .apps import LOGGING, load

PAGE = ROOT / "docs" / "how-to" / "structured-logs.md"


class Records(logging.Handler):
    """Keeps what it has formatted, as a handler that writes does."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(RequestFilter())
        self.setFormatter(logging.Formatter("%(name)s [%(queue_request_id)s %(queue_attempt)s %(queue_route)s] %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def records() -> Iterator[Records]:
    handler = Records()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize(("service", "target"), LOGGING)
async def test_records_of_every_framework_name_their_request(
    service: str, target: str, database: Path, records: Records
) -> None:
    app, _ = load(service)
    async with serving(app, database) as queue:
        await queue.client.get(target)
        assert [line for line in records.lines if line.startswith("zoo.keeper")][:1] == ["zoo.keeper [  ] feeding the seals"]
        request_id = await queue.submit("GET", target)
        await queue.response(request_id)
    assert f"zoo.keeper [{request_id} 1 other] feeding the seals" in records.lines


async def test_threads_and_tasks_of_a_handler_name_its_request(database: Path, records: Records) -> None:
    log = logging.getLogger("shop")

    async def endpoint(request: Request) -> Response:
        await anyio.to_thread.run_sync(log.warning, "anyio")
        thread = threading.Thread(target=log.warning, args=("without a context",))
        own = threading.Thread(target=contextvars.copy_context().run, args=(log.warning, "with a context"))
        for started in (thread, own):
            started.start()
            started.join()
        async with anyio.create_task_group() as group:
            group.start_soon(_log, log)
        return Response(f"{current_job.route}")

    app = Starlette(routes=[Route("/pictures/{id}", endpoint)])
    async with serving(app, database, route_of=lambda scope: "/pictures/{id}") as queue:
        request_id = await queue.submit("GET", "/pictures/1?token=canary")
        assert (await queue.response(request_id)).text == "/pictures/{id}"
    name = f"shop [{request_id} 1 /pictures/{{id}}]"
    assert [line for line in records.lines if line.startswith("shop")] == [
        f"{name} anyio", "shop [  ] without a context", f"{name} with a context", f"{name} task",
    ]  # fmt: skip


async def _log(log: logging.Logger) -> None:
    log.warning("task")


async def test_records_of_the_queue_name_the_request_that_they_are_about(database: Path, records: Records) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("no herring")

    async with serving(app, database) as queue:
        request_id = await queue.submit("POST", "/pictures")
        await queue.response(request_id)
    (line,) = [line for line in records.lines if "raised" in line]
    assert line.startswith(f"queue_middleware [{request_id} 1 other] {request_id}: the application raised ValueError")


async def test_the_json_of_the_page_has_the_fields(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    page = run_block(blocks(PAGE, "python")[1], monkeypatch)
    page.handler.setStream(output := io.StringIO())
    logging.getLogger().addHandler(page.handler)
    caplog.set_level(logging.DEBUG, "queue_middleware")

    async def endpoint(request: Request) -> Response:
        logging.getLogger("shop").warning("painting")
        raise ValueError("no herring")

    app = Starlette(routes=[Route("/pictures", endpoint, methods=["POST"])])
    try:
        async with serving(app, database) as queue:
            request_id = await queue.submit("POST", "/pictures?token=canary", headers={"authorization": "canary"})
            await queue.response(request_id)
    finally:
        logging.getLogger().removeHandler(page.handler)
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    about = {line["queue_event"]: line for line in lines if line.get("request_id") == request_id}
    assert {"submitted", "attempt_started", "application_error", "finished"} == set(about)
    assert all(line["queue_request_id"] == request_id for line in about.values())
    assert about["finished"]["seconds"] >= 0
    assert {name: about["finished"][name] for name in ("attempt", "route", "status")} == {
        "attempt": 1, "route": "other", "status": 500,
    }  # fmt: skip
    assert about["application_error"]["traceback"].endswith(
        f"ValueError: no herring\nqueue request {request_id}, attempt 1 of other"
    )
    (own,) = [line for line in lines if line["logger"] == "shop"]
    assert (own["queue_request_id"], own["queue_attempt"]) == (request_id, 1)
    assert "canary" not in output.getvalue()


async def test_structlog_of_the_page_writes_records_of_logging(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = run_block(blocks(PAGE, "python")[3], monkeypatch).handler
    handler.setStream(output := io.StringIO())
    logging.getLogger().addHandler(handler)
    try:
        async with serving(load("flask")[0], database) as queue:
            request_id = await queue.submit("GET", "/log")
            await queue.response(request_id)
    finally:
        logging.getLogger().removeHandler(handler)
    (line, *_) = [json.loads(line) for line in output.getvalue().splitlines() if "feeding the seals" in line]
    assert (line["queue_request_id"], line["queue_attempt"], line["queue_route"]) == (request_id, 1, "other")


async def test_structlog_of_the_page_names_the_request(
    database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_block(blocks(PAGE, "python")[2], monkeypatch)
    log = structlog.get_logger()

    async def endpoint(request: Request) -> Response:
        log.info("painting", picture="cat")
        await anyio.to_thread.run_sync(lambda: log.info("varnishing"))
        await log.ainfo("drying")
        return Response()

    try:
        async with serving(Starlette(routes=[Route("/", endpoint)]), database) as queue:
            await queue.client.get("/")
            request_id = await queue.submit("GET", "/")
            await queue.response(request_id)
    finally:
        structlog.reset_defaults()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    inside = {"queue_request_id": request_id, "queue_attempt": 1}
    assert [line["event"] for line in lines] == ["painting", "varnishing", "drying"] * 2
    assert [{name: line.get(name) for name in inside} for line in lines] == [dict.fromkeys(inside)] * 3 + [inside] * 3
    assert {line["queue_route"] for line in lines[3:]} <= {"/", "other"}
