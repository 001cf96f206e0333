"""The public object as strictly typed programs use it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, assert_type

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from queue_middleware import Admin, QueueMiddleware, Settings
from queue_middleware.jobs.counts import QueueCounts

# The queue attached to the application: its decorators keep their types.
app = FastAPI()
queue = QueueMiddleware.attach(app, concurrency=1, outbound_allow=["127.0.0.1"])
assert_type(queue, QueueMiddleware[FastAPI])
assert_type(queue.app, FastAPI)


@app.post("/generate")
async def generate() -> dict[str, str]:
    return {}


# The queue around the application: a separate name, because a variable keeps its first type.
api = FastAPI()
asgi = QueueMiddleware(api, max_attempts=1, retention="7d")
assert_type(asgi.app, FastAPI)
asgi.app.dependency_overrides[generate] = generate
asgi.dependency_overrides = {}
assert_type(asgi.state.anything, Any)
assert_type(asgi.settings, Settings)


class Service(QueueMiddleware[Starlette]):
    """A subclass with the type of its application."""

    async def waiting(self) -> QueueCounts:
        return await self.counts()


async def authenticate(connection: HTTPConnection) -> str | None:
    return connection.headers.get("x-user")


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """Any ASGI application."""


def route_of(scope: Mapping[str, Any]) -> str | None:
    return scope["path"].split("/")[1] or None


async def ready() -> bool:
    return True


async def admins(connection: HTTPConnection) -> Admin | str | None:
    return Admin("carol", level="read") if connection.user.is_authenticated else None


QueueMiddleware(plain, ready=ready, admin=admins, metrics_public=True)
QueueMiddleware(plain, admin="0123456789abcdef")
bare: QueueMiddleware = QueueMiddleware(plain, authenticate=authenticate, route_of=route_of)
"""Without an argument, the class accepts any application, even where incomplete generics are disallowed."""


def operate(queue: QueueMiddleware) -> None:
    """A function for any queue accepts each of them."""


operate(queue)
operate(asgi)
operate(Service(Starlette()))


@asynccontextmanager
async def lifespan(parent: FastAPI) -> AsyncIterator[dict[str, str]]:
    state = {"model": "large"}
    async with queue.running(state, parent=parent):
        yield state
