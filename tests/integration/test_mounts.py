"""A replay has what a mount adds to the scope of a direct call, or the difference is documented."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI, Request
from litestar import Litestar, asgi
from litestar.types import Receive, Scope, Send
from starlette.applications import Starlette
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Host, Mount, Route

from queue_middleware import QueueMiddleware
from tests.support.queue_client import Queue, connected, eventually

OPTIONS: dict[str, Any] = {"min_free_disk": 0, "shutdown_timeout": 2}
TENANT = "5f0c1c1e-8d0f-4b0e-9a55-0b8f2f0e0a11"


async def show(request: StarletteRequest) -> JSONResponse:
    """Respond with everything in the scope that a mount determines."""
    params = {name: [type(value).__name__, str(value)] for name, value in request.path_params.items()}
    return JSONResponse(
        {
            "own": str(request.url_for("tools:show", **request.path_params)),
            "parent": str(request.url_for("home")),
            "base": str(request.base_url),
            "root": request.scope["root_path"],
            "title": request.app.title,
            "params": params,
            "weights": getattr(request.state, "weights", None),
            "visitor": getattr(request.state, "visitor", None),
        }
    )


async def home(request: StarletteRequest) -> Response:
    return JSONResponse({})


def parent_of(queue: QueueMiddleware, route: BaseRoute, *, pass_parent: bool = True) -> FastAPI:
    """An application that mounts the queue and starts it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        state = {"weights": "loaded"}
        async with queue.running(state, parent=app) if pass_parent else queue.running(state):
            yield state

    return FastAPI(title="parent", lifespan=lifespan, routes=[Route("/", home, name="home"), route])


def routes() -> list[BaseRoute]:
    return [Route("/show/{number:int}", show, methods=["POST"], name="show")]


async def same_as_direct(queue: Queue, front: str) -> dict[str, Any]:
    direct = await queue.client.post(f"{front}/show/4")
    queue.prefix = f"{front}/fal/queue"
    replayed = await queue.run("POST", "/show/4")
    assert direct.status_code == replayed.status_code == 200
    assert direct.json() == replayed.json()
    return replayed.json()


async def test_a_replay_in_a_mounted_application_has_the_parent_in_its_scope(database: Path) -> None:
    tools = FastAPI(title="tools", routes=routes())
    wrapped = QueueMiddleware(tools, database=database, **OPTIONS)
    async with connected(parent_of(wrapped, Mount("/tools", wrapped, name="tools"))) as queue:
        seen = await same_as_direct(queue, "/tools")
    assert seen["own"] == "http://service.test/tools/show/4"
    assert (seen["title"], seen["weights"]) == ("tools", "loaded")


async def test_a_replay_has_the_parameters_of_the_mount_with_their_types(database: Path) -> None:
    wrapped = QueueMiddleware(FastAPI(title="tools", routes=routes()), database=database, **OPTIONS)
    mount = Mount("/{tenant:uuid}/{name}/{weight:float}", wrapped, name="tools")
    async with connected(parent_of(wrapped, mount)) as queue:
        seen = await same_as_direct(queue, f"/{TENANT}/acme/1.5")
    assert seen["params"] == {
        "tenant": ["UUID", str(UUID(TENANT))], "name": ["str", "acme"], "weight": ["float", "1.5"], "number": ["int", "4"],
    }  # fmt: skip


async def test_a_mounted_router_without_an_application_of_its_own(database: Path) -> None:
    """In such a router `request.app` is the parent."""
    tools = Mount("", routes=routes()).app
    wrapped = QueueMiddleware(tools, database=database, **OPTIONS)
    async with connected(parent_of(wrapped, Mount("/tools", wrapped, name="tools"))) as queue:
        assert (await same_as_direct(queue, "/tools"))["title"] == "parent"


async def test_without_a_given_parent_it_is_taken_from_the_first_request(database: Path) -> None:
    wrapped = QueueMiddleware(FastAPI(title="tools", routes=routes()), database=database, **OPTIONS)
    async with connected(parent_of(wrapped, Mount("/tools", wrapped, name="tools"), pass_parent=False)) as queue:
        queue.prefix = "/tools/fal/queue"
        response = await queue.run("POST", "/show/4")
    assert response.json()["parent"] == "http://service.test/"


async def test_after_a_restart_a_replay_has_its_parent_without_a_new_request(database: Path) -> None:
    def service(tools: Starlette) -> tuple[QueueMiddleware[Starlette], FastAPI]:
        wrapped = QueueMiddleware(tools, database=database, **{**OPTIONS, "shutdown_timeout": 0})
        return wrapped, parent_of(wrapped, Mount("/{tenant}", wrapped, name="tools"))

    async def hang(request: StarletteRequest) -> Response:
        await eventually(lambda: False, 60)
        raise AssertionError

    seen: list[dict[str, Any]] = []

    async def note(request: StarletteRequest) -> Response:
        seen.append({**request.path_params, "parent": str(request.url_for("home")), "base": str(request.base_url)})
        return JSONResponse({})

    async with connected(service(Starlette(routes=[Route("/x", hang, methods=["POST"])]))[1]) as queue:
        queue.prefix = "/acme/fal/queue"
        request_id = await queue.submit("POST", "/x")
        await queue.reaches(request_id, "IN_PROGRESS")
    async with connected(service(Starlette(routes=[Route("/x", note, methods=["POST"])]))[1]):
        await eventually(lambda: seen)
    assert seen == [{"tenant": "acme", "parent": "http://service.test/", "base": "http://service.test/"}]


async def test_a_task_of_a_mounted_queue_is_called_like_a_submission(database: Path) -> None:
    wrapped = QueueMiddleware(FastAPI(title="tools", routes=routes()), database=database, **OPTIONS)
    async with connected(parent_of(wrapped, Mount("/{tenant}", wrapped, name="tools"))) as queue:
        direct = (await queue.client.post("/acme/show/4")).json()
        made = await queue.client.post("/acme/fal/queue/v1/tasks", json={"targetUrl": "/show/4", "method": "POST"})
        assert made.status_code in (200, 201, 202), made.text
        queue.prefix = "/acme/fal/queue"
        assert (await queue.response(made.json()["task"]["id"])).json() == direct


async def test_what_outer_middleware_adds_for_one_client_reaches_no_other(database: Path) -> None:
    """Scope entries of one client must not reach another client's replay."""
    wrapped = QueueMiddleware(FastAPI(title="tools", routes=routes()), database=database, **OPTIONS)
    app = parent_of(wrapped, Mount("/tools", wrapped, name="tools"))

    @app.middleware("http")
    async def recognise(request: Request, call_next: RequestResponseEndpoint) -> Response:
        request.state.visitor = "alice"
        request.scope["user"] = "alice"
        return await call_next(request)

    async with connected(app) as queue:
        assert (await queue.client.post("/tools/show/4")).json()["visitor"] == "alice"
        queue.prefix = "/tools/fal/queue"
        assert (await queue.run("POST", "/show/4")).json()["visitor"] is None


async def test_a_replay_has_the_parameters_of_a_host_route(database: Path) -> None:
    wrapped = QueueMiddleware(FastAPI(title="tools", routes=routes()), database=database, **OPTIONS)
    async with connected(parent_of(wrapped, Host("{tenant}.test", wrapped, name="tools"))) as queue:
        seen = await same_as_direct(queue, "")
    assert seen["params"]["tenant"] == ["str", "service"]


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
async def test_a_replay_has_the_application_whose_middleware_the_queue_is(database: Path, kind: type[Any]) -> None:
    async def parent(request: StarletteRequest) -> Response:
        return JSONResponse([request.app is app, str(request.url_for("parent"))])

    app = kind(routes=[Route("/parent", parent, methods=["POST"], name="parent")])
    app.add_middleware(QueueMiddleware, database=database, **OPTIONS)
    async with connected(app) as queue:
        assert (await queue.run("POST", "/parent")).json() == [True, "http://service.test/parent"]


async def test_in_a_mount_without_root_path_the_routes_are_not_found(database: Path) -> None:
    """Litestar shortens the path and leaves `root_path` empty. If that changes, the documentation on mounts has to change."""
    wrapped = QueueMiddleware(Starlette(routes=routes()), database=database, **OPTIONS)

    @asgi("/tools", is_mount=True, copy_scope=True)
    async def tools(scope: Scope, receive: Receive, send: Send) -> None:
        await wrapped(scope, receive, send)  # type: ignore[arg-type]

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with wrapped.running(parent=app):
            yield

    async with connected(Litestar([tools], lifespan=[lifespan], logging_config=None)) as queue:
        response = await queue.client.post("/tools/fal/queue/submit/show/4")
    assert response.status_code == 404
    assert "no queue route" in response.json()["detail"]
