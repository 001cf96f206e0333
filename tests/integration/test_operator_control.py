"""Operators pause and resume the queue, see its processes, and read what was done."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from queue_middleware.errors import BadRequest, DiskFull, NotRunning
from queue_middleware.events import Operated
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.pauses import ALL_ROUTES
from queue_middleware.stores.common import processes
from queue_middleware.stores.sqlite import SQLiteStore
from tests.support.clock import ManualClock
from tests.support.doubles import EventRecorder
from tests.support.gated_service import GatedService
from tests.support.queue_client import eventually
from tests.support.sse_client import open_stream


class Service(GatedService):
    """Remembers the paths that it was called with. `go` is set from the start."""

    def __init__(self, database: Path, **options: Any) -> None:
        super().__init__(database, paths="/a, /b", concurrency=4, **options)
        self.go.set()
        self.called: list[str] = []

    async def work(self, request: Request) -> Response:
        self.called.append(request.url.path)
        await self.go.wait()
        return PlainTextResponse("done")


def acts(recorder: EventRecorder) -> list[Operated]:
    return [event for event in recorder.events if isinstance(event, Operated)]


async def test_a_paused_route_does_not_start_and_goes_on_when_it_is_resumed(database: Path) -> None:
    recorder = EventRecorder()
    service = Service(database, observers=[recorder])
    async with service.queue() as queue:
        await service.app.pause("/a", reason="the model is loaded again", operator="carol")
        held = await queue.submit("POST", "/a")
        assert (await queue.run("POST", "/b")).text == "done"
        assert service.called == ["/b"]
        status = await queue.status(held)
        assert (status["status"], status["queue_position"]) == ("IN_QUEUE", 0)
        (pause,) = await service.app.pauses()
        assert (pause.route, pause.operator, pause.reason, pause.paused_until) == (
            "/a", "carol", "the model is loaded again", None,
        )  # fmt: skip
        assert await service.app.resume("/a")
        assert not await service.app.resume("/a")
        assert (await queue.response(held)).text == "done"
        recorded = [(act.operator, act.action, act.target) for act in await service.app.audit()]
    assert recorded == [("application", Action.RESUME, "/a"), ("carol", Action.PAUSE, "/a")]
    assert acts(recorder) == [
        Operated("carol", Action.PAUSE, "/a", 1),
        Operated("application", Action.RESUME, "/a", 1),
    ]


async def test_a_pause_of_all_routes_holds_the_queue_of_another_process_too(database: Path) -> None:
    one, other = [Service(database, name="test") for _ in range(2)]
    async with one.queue() as first, other.queue() as second:
        await one.app.pause()
        held = [await queue.submit("POST", "/a") for queue in (first, second)]
        assert [(await first.status(request_id))["status"] for request_id in held] == ["IN_QUEUE"] * 2
        assert [pause.route for pause in await other.app.pauses()] == [ALL_ROUTES]
        await other.app.resume()
        for request_id in held:
            assert (await first.response(request_id)).text == "done"
    assert len(one.called + other.called) == 2


async def test_running_requests_go_on(database: Path) -> None:
    service = Service(database)
    service.go.clear()
    async with service.queue() as queue:
        running = await queue.submit("POST", "/a")
        await eventually(lambda: service.called)
        await service.app.pause()
        service.go.set()
        assert (await queue.response(running)).text == "done"


async def test_a_pause_ends_at_its_time_and_the_end_is_reported(database: Path) -> None:
    clock, recorder = ManualClock(), EventRecorder()
    service = Service(database, observers=[recorder], _clock=clock.seconds)
    async with service.queue() as queue:
        until = datetime.fromtimestamp(clock.seconds(), UTC) + timedelta(hours=1)
        await service.app.pause("/a", until=until)
        held = await queue.submit("POST", "/a")
        clock.advance(3601)
        service.app._runtime.services.check_due()
        assert (await queue.response(held)).text == "done"
        await eventually(lambda: len(acts(recorder)) == 2)
        assert await service.app.pauses() == []
    assert acts(recorder)[1] == Operated("queue", Action.RESUME, "/a", 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"route": ""}, "a route is a text of 1 to 200"),
        ({"route": "/a\n"}, "a route is a text"),
        ({"route": 3}, "a route is a text"),
        ({"until": datetime(2020, 1, 1, tzinfo=UTC)}, "which is over"),
        ({"until": datetime(2099, 1, 1)}, "a datetime with a time zone"),
        ({"reason": "x" * 1001}, "at most 1000 characters"),
        ({"operator": ""}, "1 to 256 printable characters"),
        ({"operator": "carol\n2026 WARNING"}, "1 to 256 printable characters"),
    ],
)
async def test_arguments_that_cannot_be_meant_are_refused(database: Path, arguments: dict[str, Any], sentence: str) -> None:
    service = Service(database)
    async with service.queue():
        with pytest.raises(BadRequest, match=sentence):
            await service.app.pause(**arguments)
        assert await service.app.pauses() == []
        for act in (service.app.resume(operator=""), service.app.redeliver(host="a.example", operator="")):
            with pytest.raises(BadRequest, match="1 to 256 printable characters"):
                await act
        with pytest.raises(BadRequest, match="1 to 256 printable characters"):
            await service.app.probe("a.example", operator="")
        with pytest.raises(BadRequest, match="limit is 0"):
            await service.app.audit(limit=0)


async def test_a_queue_that_does_not_run_cannot_be_paused(database: Path) -> None:
    app = Service(database).app
    for method in (app.pause, app.resume, app.pauses, app.processes, app.audit):
        with pytest.raises(NotRunning):
            await method()


async def test_processes_are_listed_with_what_they_are_busy_with(database: Path) -> None:
    service = Service(database, lease=0.5)
    service.go.clear()
    async with service.queue() as queue:
        (started,) = await service.app.processes()
        assert (started.concurrency, started.running, started.stuck, started.streams) == (4, 0, 0, 0)
        request_id = await queue.submit("POST", "/a")

        async def reported(running: int, streams: int) -> bool:
            (process,) = await service.app.processes()
            return (process.running, process.streams) == (running, streams)

        async with open_stream(service.app, request_id) as listener:
            await listener.event()
            await eventually(lambda: reported(1, 1))
        await eventually(lambda: reported(1, 0))
    store = SQLiteStore(service.app.settings)
    await store.open()
    assert await store.operations.processes() == []
    await store.close()


async def test_the_queue_starts_even_if_its_record_cannot_be_stored(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, the queue has to serve results."""

    def full(*_: Any) -> Any:
        raise DiskFull("the disk is full", 1)

    monkeypatch.setattr(processes, "put", full)
    service = Service(database, lease=0.5)
    async with service.queue():
        await eventually(service.app.processes)


async def test_many_pauses_at_once_end_in_one_pause(database: Path) -> None:
    service = Service(database)
    async with service.queue():
        await asyncio.gather(*[service.app.pause("/a", reason=str(number)) for number in range(20)])
        assert len(await service.app.pauses()) == 1
        assert len(await service.app.audit()) == 20
