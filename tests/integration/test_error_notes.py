"""What an application raises names its request: in the log, for observers, and for every tracker that reads tracebacks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from a2wsgi import WSGIMiddleware

from queue_middleware.events import ApplicationError
from tests.support.doubles import EventRecorder
from tests.support.queue_client import serving

App = Callable[[Any, Any, Any], Awaitable[None]]
CONSTANT = ValueError("a constant of the module")


async def _raises(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("no herring")


async def _raises_in_a_thread(scope: Any, receive: Any, send: Any) -> None:
    def work() -> None:
        raise ValueError("no herring")

    await anyio.to_thread.run_sync(work)


async def _raises_in_a_group(scope: Any, receive: Any, send: Any) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_raises, scope, receive, send)


async def _raises_a_constant(scope: Any, receive: Any, send: Any) -> None:
    raise CONSTANT


def _wsgi(environ: Any, start_response: Any) -> Any:
    raise ValueError("no herring")


def only_http(app: Any) -> App:
    async def call(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)

    return call


@pytest.mark.parametrize(
    "app",
    [_raises, _raises_in_a_thread, _raises_in_a_group, _raises_a_constant, WSGIMiddleware(_wsgi)],
    ids=["coroutine", "thread", "group", "constant", "wsgi"],
)
async def test_an_exception_names_its_request(app: Any, database: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = EventRecorder()
    async with serving(only_http(app), database, observers=[recorder], route_of=lambda scope: "/pictures/{id}") as queue:
        for number in range(2):
            request_id = await queue.submit("POST", f"/pictures/{number}?token=canary", headers={"authorization": "canary"})
            await queue.response(request_id)
            note = f"queue request {request_id}, attempt 1 of /pictures/{{id}}"
            error = recorder.of(ApplicationError)[-1]
            assert (error.request_id, error.attempt, error.route) == (request_id, 1, "/pictures/{id}")
            assert error.error.__notes__ == [note]
            formatter = logging.Formatter()
            record = [record for record in caplog.records if getattr(record, "queue_event", "") == "application_error"][-1]
            text = formatter.format(record)
            assert text.count("queue request ") == text.count(note) == 1
            assert "canary" not in text


async def test_a_direct_call_leaves_the_exception_as_it_is(database: Path) -> None:
    async with serving(only_http(_raises), database) as queue:
        with pytest.raises(ValueError, match="no herring") as caught:
            await queue.client._transport.app({"type": "http", "path": "/", "method": "GET"}, None, None)
    assert not hasattr(caught.value, "__notes__")
