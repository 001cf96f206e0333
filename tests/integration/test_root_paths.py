"""Services below a path: the application responds as in a direct call, and the returned URLs work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from queue_middleware import QueueMiddleware
from tests.support.queue_client import connected, eventually, mounting
from tests.support.raw_asgi import RawResponse, call, http_scope

LIKE_UVICORN, NOT_DOUBLED, LEFT_OUT = "like-uvicorn", "not-doubled", "left-out"


def studio(root_path: str = "", *, mounted: bool = False) -> FastAPI:
    app = FastAPI()
    app.root_path = root_path

    @app.api_route("/hello", methods=["GET", "POST"])
    async def hello(request: Request) -> dict[str, Any]:
        scope = request.scope
        return {
            "url": str(request.url),
            "to": None if mounted else str(request.url_for("hello")),
            "seen": [scope["root_path"], scope["path"], scope["raw_path"].decode()],
        }

    return app


class Service:
    """A service behind a server that puts its root path before the path, or does not."""

    def __init__(self, app: Any, root: str, spelled: str = LIKE_UVICORN, below: str = "") -> None:
        self.app = app
        self.root = root
        self.below = below
        """The path of a mount, within the path that clients use."""
        self._front = {LIKE_UVICORN: root, NOT_DOUBLED: root.removesuffix("/"), LEFT_OUT: ""}[spelled]

    async def get(self, path: str) -> RawResponse:
        scope = http_scope("GET", f"{self._front}{self.below}{path}".encode())
        return await call(self.app, {**scope, "root_path": self.root})

    async def follow(self, url: str, public: str) -> RawResponse:
        """Call a returned URL through a proxy that removes the root path."""
        front = f"http://service.test{public}"
        assert url.startswith(front), url
        return await self.get(url.removeprefix(front))


async def compare(service: Service, public: str, prefix: str = "/fal/queue") -> None:
    direct = await service.get("/hello")
    assert direct.status == 200, direct.body
    response = await service.get(f"{prefix}/submit/hello")
    assert response.status == 200, response.body
    urls = json.loads(response.body)

    async def over() -> bool:
        return (await service.follow(urls["status_url"], public)).status == 200

    await eventually(over)
    replayed = await service.follow(urls["response_url"], public)
    assert (replayed.status, replayed.body) == (200, direct.body)
    assert (await service.get("/nothing")).status == 404
    assert (await service.get(f"{prefix}/nothing")).status == 404


@pytest.mark.parametrize(
    ("root", "spelled"),
    [
        ("", LIKE_UVICORN),
        ("/sub", LIKE_UVICORN),
        ("/sub/", LIKE_UVICORN),
        ("/sub", LEFT_OUT),
        ("/sub/", LEFT_OUT),
        ("/a/b", LIKE_UVICORN),
        ("/fal/queue", LIKE_UVICORN),
        ("/fal/queue/", LIKE_UVICORN),
        ("/fal", LIKE_UVICORN),
    ],
)
async def test_the_root_path_of_the_server(database: Path, root: str, spelled: str) -> None:
    app = QueueMiddleware(studio(), database=database, min_free_disk=0)
    async with connected(app):
        await compare(Service(app, root, spelled), root.rstrip("/"))


@pytest.mark.parametrize("declared", ["/api", "/api/"])
@pytest.mark.parametrize("spelled", [LIKE_UVICORN, LEFT_OUT])
@pytest.mark.parametrize("wrapped", [True, False])
async def test_the_root_path_of_a_fastapi(database: Path, declared: str, spelled: str, wrapped: bool) -> None:
    inner = studio(declared)
    outer = Passing(inner) if wrapped else inner
    app = QueueMiddleware(outer, database=database, min_free_disk=0)
    front = "" if spelled == LEFT_OUT else declared.rstrip("/")
    async with connected(app):
        service = Service(app, "", LEFT_OUT, front)
        if declared == "/api" or spelled == LEFT_OUT:
            await compare(service, "/api")
        else:  # FastAPI itself finds no route there
            assert (await service.get("/hello")).status == 404


class Passing:
    """Middleware around the application."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.mark.parametrize("declared", ["/api", "/api/", ""])
async def test_inside_of_a_fastapi_with_a_root_path(database: Path, declared: str) -> None:
    app = studio(declared)
    app.add_middleware(QueueMiddleware, database=database, min_free_disk=0)
    async with connected(app):
        await compare(Service(app, "", LEFT_OUT), declared.rstrip("/"))


@pytest.mark.parametrize("root", ["", "/sub", "/sub/"])
@pytest.mark.parametrize("mount", ["/tools", "/fal/queue", "/tools/"])
async def test_a_mount_below_a_root_path(database: Path, root: str, mount: str) -> None:
    inner = QueueMiddleware(studio(mounted=True), database=database, min_free_disk=0)
    app = mounting(mount, inner)
    async with connected(app):
        below = mount.rstrip("/")
        service = Service(app, root, LIKE_UVICORN, below)
        # The returned URLs contain the mount, behind the root path.
        await compare(service, f"{root}{below}")


async def test_callback_urls_work_too(database: Path) -> None:
    app = QueueMiddleware(studio("/api"), database=database, min_free_disk=0)
    async with connected(app) as queue:
        task = await queue.client.post("/fal/queue/v1/tasks", json={"targetUrl": "/hello?u={callback_url}", "maxWaitTime": 60})
        assert task.json()["callbackUrl"].startswith("http://service.test/api/fal/queue/v1/callbacks/")


async def test_in_the_middleware_stack_of_a_starlette(database: Path) -> None:
    inner = Starlette(
        routes=[Mount("/", studio())], middleware=[Middleware(QueueMiddleware, database=database, min_free_disk=0)]
    )
    async with connected(inner):
        await compare(Service(inner, "/sub/"), "/sub")
