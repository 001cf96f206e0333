"""Objects that cannot be wrapped are refused at construction."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from a2wsgi import WSGIMiddleware
from django.core.handlers.wsgi import WSGIHandler
from fastapi import FastAPI
from flask import Flask
from litestar import Litestar
from quart import Quart
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.gzip import GZipMiddleware

from queue_middleware import QueueMiddleware
from queue_middleware.errors import SettingsError


def kind_of(value: Any) -> str:
    """An id that is the same in every process, so that pytest-xdist can distribute the tests."""
    return re.sub(r" at 0x[0-9a-f]+| id='\d+'", "", str(value))


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


class Views:
    def __init__(self, extra: object = None) -> None: ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def called(self, scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize(
    "app",
    [
        asgi,
        Views(),
        Views().called,
        HTTPEndpoint,
        partial(asgi),
        lambda *channel: asgi(*channel),
        lambda scope, receive, send: asgi(scope, receive, send),
        AsyncMock(),
        FastAPI(),
        Starlette(),
        Quart("quart"),
        Litestar([], logging_config=None),
        WSGIMiddleware(wsgi),
        GZipMiddleware(asgi),
    ],
    ids=lambda app: type(app).__name__,
)
def test_asgi_applications_are_accepted(app: Any) -> None:
    assert QueueMiddleware(app).app is app


@pytest.mark.parametrize("app", [wsgi, Flask("flask"), partial(wsgi), object.__new__(WSGIHandler)], ids=kind_of)
def test_a_wsgi_application_is_refused_with_the_name_of_an_adapter(app: Any) -> None:
    with pytest.raises(SettingsError, match=r"is a WSGI application; .* QueueMiddleware\(a2wsgi.WSGIMiddleware\(app\)\)"):
        QueueMiddleware(app)


@pytest.mark.parametrize("app", ["main:app", None, 5, Starlette().routes, lambda scope: None, FastAPI], ids=kind_of)
def test_objects_that_are_not_applications_are_refused(app: Any) -> None:
    with pytest.raises(SettingsError, match="is not an ASGI application"):
        QueueMiddleware(app)


# --- wrapped twice


TWICE = "the application already has a queue with the same"


def test_wrapping_a_wrapped_application_is_refused() -> None:
    with pytest.raises(SettingsError, match=f"{TWICE} prefix /fal/queue"):
        QueueMiddleware(QueueMiddleware(asgi))
    with pytest.raises(SettingsError, match=f"{TWICE} prefix /x"):
        QueueMiddleware(GZipMiddleware(QueueMiddleware(asgi, prefix="x", database="a")), prefix="/x/", database="b")


def test_two_queues_of_one_application_with_one_database_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    inner = QueueMiddleware(asgi, prefix="/inner", database=tmp_path / "real")
    with pytest.raises(SettingsError, match=f"{TWICE} database"):
        QueueMiddleware(inner, database=tmp_path / "link")
    QueueMiddleware(inner, database=tmp_path / "other")


def test_wrapping_an_application_with_the_middleware_added_is_refused() -> None:
    app = FastAPI()
    app.add_middleware(QueueMiddleware, prefix="/inner", authenticate=None)
    with pytest.raises(SettingsError, match=f"{TWICE} database"):
        QueueMiddleware(app)
    with pytest.raises(SettingsError, match=f"{TWICE} prefix /inner"):
        QueueMiddleware(app, prefix="/inner", database="other.sqlite3")
    QueueMiddleware(app, database="other.sqlite3")


async def test_adding_the_middleware_twice_is_refused() -> None:
    app = FastAPI()
    app.add_middleware(QueueMiddleware)
    app.add_middleware(QueueMiddleware)
    with pytest.raises(SettingsError, match=TWICE):
        await app({"type": "http"}, None, None)  # type: ignore[arg-type]


# --- authenticate


class Accounts:
    async def __call__(self, connection: Any) -> str | None: ...

    async def find(self, connection: Any) -> str | None: ...

    def look(self, connection: Any) -> str | None: ...


class Blocking:
    def __call__(self, connection: Any) -> str | None: ...


async def find(extra: object, connection: Any) -> str | None: ...


@pytest.mark.parametrize("authenticate", [Accounts(), Accounts().find, partial(find, 1), AsyncMock()], ids=kind_of)
def test_async_authenticate_functions_are_accepted(authenticate: Any) -> None:
    QueueMiddleware(asgi, authenticate=authenticate)


@pytest.mark.parametrize(
    "authenticate", [Accounts().look, Blocking(), lambda connection: "alice", partial(Accounts.look, 1)], ids=kind_of
)
def test_a_blocking_authenticate_is_refused(authenticate: Any) -> None:
    with pytest.raises(SettingsError, match=r"authenticate: .* is not async; write 'async def', and call blocking code with"):
        QueueMiddleware(asgi, authenticate=authenticate)


def test_a_ready_that_cannot_be_awaited_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"ready: .* is not async; write 'async def'"):
        QueueMiddleware(asgi, ready=lambda: True)  # type: ignore[arg-type,return-value]
    with pytest.raises(SettingsError, match=r"ready: True is not a function; write 'async def ready\(\)'"):
        QueueMiddleware(asgi, ready=True)  # type: ignore[arg-type]


def test_an_authenticate_that_is_not_callable_is_refused() -> None:
    with pytest.raises(SettingsError, match="authenticate: 'alice' is not a function"):
        QueueMiddleware(asgi, authenticate="alice")  # type: ignore[arg-type]
