"""A program: a failing request in each framework, with the defaults of the SDK of Sentry, which patches frameworks for ever.

It prints a JSON object: what was sent, by the name of the case.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from a2wsgi import WSGIMiddleware
from asgi_lifespan import LifespanManager
from fastapi import FastAPI
from flask import Flask

from queue_middleware import QueueMiddleware
from queue_middleware.observability.sentry import SentryObserver
from tests.support.queue_client import Queue, client_of, eventually, serving
from tests.support.sentry import Sent, initialize

from . import load

CASES = ["fastapi", "starlette", "litestar", "django-async", "django-sync", "flask", "plain", "attached"]


async def _plain(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        raise RuntimeError("secret detail")


async def _boom() -> None:
    raise RuntimeError("secret detail")


def _boom_in_a_thread() -> None:
    raise RuntimeError("secret detail")


async def _fail(queue: Queue, target: str, sent: Sent) -> None:
    sent.events.clear()
    await queue.response(await queue.submit("GET", target))
    await eventually(lambda: sent.transactions("queue.process"))


async def _run(case: str, database: Path, sent: Sent) -> None:
    if case == "attached":
        app = FastAPI()
        app.get("/boom")(_boom)
        QueueMiddleware.attach(app, database=database, min_free_disk=0, observers=[SentryObserver()])
        async with LifespanManager(app) as manager, client_of(manager.app) as client:
            await _fail(Queue(client), "/boom", sent)
        return
    app, root = _application(case)
    async with serving(app, database, observers=[SentryObserver()]) as queue:
        await _fail(queue, f"{root}/boom", sent)


def _application(case: str) -> tuple[Any, str]:
    """The application of a case, and the path of its endpoints."""
    if case == "plain":
        return _plain, ""
    if case == "flask":  # not that of the zoo: the SDK patches Flask, through Quart, so that a view can have only one route
        flask = Flask("shop")
        flask.get("/boom")(_boom_in_a_thread)
        return WSGIMiddleware(flask), ""
    return load(case)


async def main() -> None:
    """Run every case."""
    sent = Sent()
    initialize(sent, patches=True)
    results = {}
    with TemporaryDirectory() as folder:
        for case in CASES:
            await _run(case, Path(folder, f"{case}.sqlite3"), sent)
            results[case] = list(sent.events)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
