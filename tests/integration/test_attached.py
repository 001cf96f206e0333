"""A queue attached to the application object: outermost, started by the lifespan, visible to tools that look for the class."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from queue_middleware import QueueMiddleware, current_job
from queue_middleware.errors import SettingsError
from queue_middleware.jobs.models import JobState
from tests.support.queue_client import connected

OPTIONS: dict[str, Any] = {"min_free_disk": 0, "shutdown_timeout": 2}


async def model() -> str:
    return "large"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"weights": "loaded"}


def pictures() -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    @app.post("/generate")
    async def generate(request: Request, model: Annotated[str, Depends(model)]) -> dict[str, Any]:
        return {
            "model": model,
            "weights": request.state.weights,
            "url": str(request.url_for("generate")),
            "app": request.app is app,
            "seen": request.headers.get("x-seen"),
        }

    return app


async def test_a_replay_passes_every_middleware_once_like_a_direct_call(database: Path) -> None:
    app = pictures()
    queue = QueueMiddleware.attach(app, database=database, **OPTIONS)
    passed: list[str] = []

    @app.middleware("http")  # added after the queue, but still outside it
    async def count(request: Request, call_next: RequestResponseEndpoint) -> Response:
        passed.append(request.url.path)
        return await call_next(request)

    async with connected(app) as client:
        direct = await client.client.post("/generate")
        replayed = await client.run("POST", "/generate")
        assert direct.json() == replayed.json()
        assert direct.json()["app"] is True
        assert passed == ["/generate", "/generate"]
        assert (await queue.counts()).jobs == {JobState.COMPLETED: 1}


async def test_overrides_hold_in_a_replay(database: Path) -> None:
    app = pictures()
    QueueMiddleware.attach(app, database=database, **OPTIONS)
    async with connected(app) as client:
        app.dependency_overrides[model] = lambda: "small"
        assert (await client.run("POST", "/generate")).json()["model"] == "small"


async def test_overrides_of_a_wrapped_application_hold_in_a_replay(database: Path) -> None:
    app = QueueMiddleware(pictures(), database=database, **OPTIONS)
    async with connected(app) as client:
        app.dependency_overrides = {model: lambda: "small"}
        assert (await client.run("POST", "/generate")).json()["model"] == "small"
        app.dependency_overrides = {}
        assert (await client.run("POST", "/generate")).json()["model"] == "large"


async def test_a_replay_passes_through_patches_of_the_class(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools for tracing and errors patch the class: a replay that skipped the patches would be invisible to them."""
    calls: list[str] = []
    call = FastAPI.__call__

    async def traced(self: FastAPI, scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["type"])
        await call(self, scope, receive, send)

    monkeypatch.setattr(FastAPI, "__call__", traced)
    app = pictures()
    QueueMiddleware.attach(app, database=database, **OPTIONS)
    async with connected(app) as client:
        await client.submit("POST", "/generate")
        before = calls.count("http")
        await client.run("POST", "/generate")
    assert calls.count("http") > before + 1


async def test_a_stack_that_is_built_again_has_the_queue_and_the_new_middleware(database: Path) -> None:
    app = pictures()
    QueueMiddleware.attach(app, database=database, **OPTIONS)
    async with connected(app) as client:
        await client.run("POST", "/generate")

        async def seen(request: Request, call_next: RequestResponseEndpoint) -> Response:
            request.scope["headers"].append((b"x-seen", b"yes"))
            return await call_next(request)

        app.middleware_stack = None
        app.middleware("http")(seen)
        app.middleware_stack = app.build_middleware_stack()
        assert (await client.run("POST", "/generate")).json()["seen"] == "yes"


async def test_it_works_in_a_mounted_application(database: Path) -> None:
    """A mounted application and its parent have separate queue routes; a replay goes to the application of its submission."""

    async def name(request: Request) -> JSONResponse:
        return JSONResponse({"id": bool(current_job.id), "url": str(request.url_for("tools:name"))})

    tools = Starlette(routes=[Route("/name", name, methods=["POST"], name="name")])
    inner = QueueMiddleware.attach(tools, database=database, **OPTIONS)

    @asynccontextmanager
    async def start(app: Starlette) -> AsyncIterator[None]:
        async with inner.running(parent=app):
            yield

    app = Starlette(routes=[Mount("/tools", tools, name="tools")], lifespan=start)
    outer = QueueMiddleware.attach(app, database=database.with_name("outer.sqlite3"), **OPTIONS)
    async with connected(app) as client:
        client.prefix = "/tools/fal/queue"
        assert (await client.run("POST", "/name")).json() == {"id": True, "url": "http://service.test/tools/name"}
        # A replay of the outer queue may submit to the inner one.
        client.prefix = "/fal/queue"
        nested = await client.run("POST", "/tools/fal/queue/submit/name")
        assert nested.json()["status"] == "IN_QUEUE"
        assert (await outer.counts()).jobs == {JobState.COMPLETED: 1}


async def test_quart_can_be_attached_to(database: Path) -> None:
    app = Quart(__name__)

    @app.post("/generate")
    async def generate() -> dict[str, bool]:
        return {"replayed": bool(current_job.id)}

    queue = QueueMiddleware.attach(app, database=database, **OPTIONS)
    async with connected(app) as client:
        assert (await client.client.post("/generate")).json() == {"replayed": False}
        assert (await client.run("POST", "/generate")).json() == {"replayed": True}
        assert (await queue.counts()).jobs == {JobState.COMPLETED: 1}


def test_an_application_with_an_attached_queue_cannot_be_wrapped(database: Path) -> None:
    app = Starlette()
    QueueMiddleware.attach(app, database=database)
    with pytest.raises(SettingsError, match="already has a queue"):
        QueueMiddleware(app, database=database)
    with pytest.raises(SettingsError, match="already has a queue"):
        QueueMiddleware.attach(app, database=database)
