"""Each request has a route, which events and lists carry: one of few values, whatever paths are submitted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from litestar import Litestar, Request, post
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from queue_middleware import QueueMiddleware
from queue_middleware.errors import SettingsError
from queue_middleware.events import ApplicationError, AttemptStarted, Event, Finished, ServiceError, Submitted
from queue_middleware.jobs.job_list import JobFilter
from tests.support.queue_client import Queue, connected, eventually


class Recorder:
    """Keeps the events that carry a route."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def routes(self, kind: type[Submitted | AttemptStarted | Finished]) -> list[str | None]:
        return [event.route for event in self.events if isinstance(event, kind)]


def fastapi_app() -> FastAPI:
    app = FastAPI()
    sub = FastAPI()

    @app.post("/items/{item}")
    async def item(item: str) -> str:
        return item

    @sub.post("/reports/{year:int}")
    async def report(year: int, tenant: str = "") -> int:
        return year

    app.mount("/{tenant}/sub", sub)
    return app


async def run_all(queue: Queue, *targets: str) -> None:
    for target in targets:
        assert (await queue.run("POST", target)).is_success


async def listed(app: QueueMiddleware[Any]) -> list[str]:
    """The stored routes, in the order of submission."""
    page = await app._runtime.services.stores.jobs.page(JobFilter())
    return [one.route for one in reversed(page.jobs)]


async def test_the_template_of_the_framework_is_learned_and_stored(database: Path) -> None:
    recorder = Recorder()
    app = QueueMiddleware(fastapi_app(), database=database, min_free_disk=0, observers=[recorder])
    async with connected(app) as queue:
        await run_all(queue, "/items/1", "/items/2", "/acme/sub/reports/1999", "/evil/sub/reports/2000")
        expected = ["other", "/items/{item}", "other", "/{tenant}/sub/reports/{year:int}"]
        assert await listed(app) == expected
    assert recorder.routes(Submitted) == recorder.routes(AttemptStarted) == recorder.routes(Finished) == expected
    again = QueueMiddleware(fastapi_app(), database=database, min_free_disk=0)
    async with connected(again) as queue:
        await run_all(queue, "/items/3")
        assert (await listed(again))[-1] == "/items/{item}"


async def test_a_template_that_one_process_learns_is_known_to_the_others(database: Path) -> None:
    """Otherwise an act on a route would leave out the requests that other processes have accepted."""
    first, second = (QueueMiddleware(fastapi_app(), database=database, min_free_disk=0) for _ in range(2))
    async with connected(first) as queue, connected(second):
        routes = second._runtime.routes
        assert routes.of("/items/1", "POST", {}) == "other"
        await run_all(queue, "/items/1")
        await eventually(lambda: routes.of("/items/1", "POST", {}) == "/items/{item}")


async def test_the_prefix_of_an_included_router_is_part_of_the_template(database: Path) -> None:
    inner, outer, fastapi = APIRouter(prefix="/own"), APIRouter(), FastAPI()

    @inner.post("/items/{item}")
    async def item(item: str) -> str:
        return item

    outer.include_router(inner, prefix="/deep")
    fastapi.include_router(outer, prefix="/api/{tenant}")
    app = QueueMiddleware(fastapi, database=database, min_free_disk=0)
    async with connected(app) as queue:
        await run_all(queue, "/api/a/deep/own/items/1", "/api/b/deep/own/items/2")
        assert await listed(app) == ["other", "/api/{tenant}/deep/own/items/{item}"]


@pytest.mark.parametrize("place", ["/t-{tenant}", "/{item}", "/{tenant}.{region}/x", "/{rest:path}/in"])
async def test_no_value_of_a_mount_becomes_a_route(database: Path, place: str) -> None:
    async def item(request: Any) -> PlainTextResponse:
        return PlainTextResponse("")

    route = Route("/items/{item}", item, methods=["POST"])
    starlette = Starlette(routes=[Mount("/plain", PlainTextResponse("")), Mount(place, routes=[route])])
    app = QueueMiddleware(starlette, database=database, min_free_disk=0)
    values = {"tenant": "secret", "item": "secret", "region": "eu", "rest:path": "a/secret"}
    prefix = re.sub(r"\{(.*?)\}", lambda match: values[match[1]], place)
    async with connected(app) as queue:
        await run_all(queue, f"{prefix}/items/1", f"{prefix}/items/2")
        assert await listed(app) == ["other", f"{place}/items/{{item}}"]


async def test_a_root_path_that_no_mount_declares_does_not_become_a_route(database: Path) -> None:
    async def item(request: Any) -> PlainTextResponse:
        return PlainTextResponse("")

    starlette = Starlette(routes=[Route("/items/{item}", item, methods=["POST"])])

    async def by_tenant(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["root_path"] = "/" + scope["path"].split("/")[1]
        await starlette(scope, receive, send)

    app = QueueMiddleware(by_tenant, database=database, min_free_disk=0)
    async with connected(app) as queue:
        await run_all(queue, "/secret/items/1", "/secret/items/2")
        assert await listed(app) == ["other", "other"]


async def test_a_strange_scope_does_not_change_the_outcome(database: Path) -> None:
    class Strange:
        @property
        def path(self) -> str:
            raise RuntimeError("no path")

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = Strange()
        raise LookupError("of the application")

    recorder = Recorder()
    app = QueueMiddleware(broken, database=database, min_free_disk=0, observers=[recorder])
    async with connected(app) as queue:
        assert (await queue.run("POST", "/a")).status_code == 500
    assert [str(event.error) for event in recorder.events if isinstance(event, ApplicationError)] == ["of the application"]


async def test_starlette_leaves_a_template(database: Path) -> None:
    async def item(request: Any) -> PlainTextResponse:
        return PlainTextResponse("")

    starlette = Starlette(routes=[Route("/items/{item}", item, methods=["POST"])])
    app = QueueMiddleware(starlette, database=database, min_free_disk=0)
    async with connected(app) as queue:
        await run_all(queue, "/items/1", "/items/2")
        assert await listed(app) == ["other", "/items/{item}"]


async def test_litestar_leaves_a_template(database: Path) -> None:
    @post("/items/{item:str}")
    async def item(request: Request) -> str:
        return request.url.path

    app = QueueMiddleware(Litestar([item]), database=database, min_free_disk=0)
    async with connected(app) as queue:
        await run_all(queue, "/items/1", "/items/2")
        assert await listed(app) == ["other", "/items/{item}"]


async def test_route_of_sees_the_queued_call(database: Path) -> None:
    seen: list[Mapping[str, Any]] = []

    def route_of(scope: Mapping[str, Any]) -> str | None:
        seen.append(scope)
        return {"1": "one", "2": None}[scope["path"].rpartition("/")[2]]

    recorder = Recorder()
    app = QueueMiddleware(fastapi_app(), database=database, min_free_disk=0, route_of=route_of, observers=[recorder])
    async with connected(app) as queue:
        await run_all(queue, "/items/1", "/items/2", "/items/3")
        task = {"targetUrl": "/items/1?x=1", "httpMethod": "POST"}
        assert (await queue.client.post("/fal/queue/v1/tasks", json=task)).status_code == 201
        assert await listed(app) == ["one", "other", "other", "one"]
    assert [(scope["method"], scope["path"]) for scope in seen][-1] == ("POST", "/items/1")
    (error,) = [event for event in recorder.events if isinstance(event, ServiceError)]
    assert (error.where, str(error.error)) == ("route_of", "'3'")


async def test_patterns_of_paths_are_routes(database: Path) -> None:
    app = QueueMiddleware(fastapi_app(), database=database, min_free_disk=0, paths="/items/*")
    async with connected(app) as queue:
        await run_all(queue, "/items/1", "/items/2")
        assert await listed(app) == ["/items/*", "/items/*"]


async def test_an_external_task_has_the_entry_that_allows_it(database: Path) -> None:
    app = QueueMiddleware(fastapi_app(), database=database, min_free_disk=0, task_targets="*.example.com", max_delay="36500d")
    async with connected(app) as queue:
        task = {"targetUrl": "https://eu.example.com/v1/run", "delayUntil": "2100-01-01T00:00:00Z"}
        created = await queue.client.post("/fal/queue/v1/tasks", json=task)
        assert created.status_code == 201, created.text
        assert await listed(app) == ["*.example.com"]


async def test_a_framework_without_templates_gives_other(database: Path) -> None:
    app = QueueMiddleware(PlainTextResponse("hello"), database=database, min_free_disk=0)
    async with connected(app) as queue:
        await run_all(queue, "/items/1", "/items/2")
        assert await listed(app) == ["other", "other"]


def test_a_route_of_that_cannot_be_called_is_refused(database: Path) -> None:
    async def asynchronous(scope: Mapping[str, Any]) -> str:
        return ""

    class Asynchronous:
        async def __call__(self, scope: Mapping[str, Any]) -> str:
            return ""

    for wrong in ("text", asynchronous, Asynchronous(), lambda: ""):
        with pytest.raises(SettingsError, match=r"route_of: .* is not a plain function of one argument"):
            QueueMiddleware(fastapi_app(), database=database, route_of=wrong)  # type: ignore[arg-type]
