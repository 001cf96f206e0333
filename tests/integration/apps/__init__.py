"""The same endpoints, written in six frameworks as their users would write them. This module has what they share."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio

from queue_middleware import current_job

ALPHABET = Path(__file__).with_name("alphabet.txt")
ETAG = '"v1"'
CHUNKS = [b"one ", b"zwei ", "tre\u0301s ".encode(), bytes(range(256)), b"", b"end"]
LARGE = bytes(range(256)) * 4096 * 2
TEXT = "Grüße, 世界 \N{SNOWMAN}"
REPEATED = [("x-order", "first"), ("x-other", "between"), ("x-order", "second"), ("x-latin", "caf\xe9"), ("x-empty", "")]

SERVICES = {
    "fastapi": ("fastapi_zoo", ""),
    "starlette": ("starlette_zoo", ""),
    "litestar": ("litestar_zoo", ""),
    "django-async": ("django_zoo", ""),
    "django-sync": ("django_zoo", "/sync"),
    "flask": ("flask_zoo", ""),
    "quart": ("quart_zoo", ""),
}
"""Name → module and the path of its endpoints."""
LOGGING = [
    ("fastapi", "/log"),
    ("fastapi", "/log/thread"),
    ("starlette", "/log"),
    ("litestar", "/log"),
    ("django-async", "/log"),
    ("django-sync", "/sync/log"),
    ("flask", "/log"),
    ("quart", "/log"),
    ("quart", "/log/thread"),
]
"""Services and paths of endpoints that log, in the event loop or in a thread."""

_OURS = {b"x-fal-request-id"}


def load(name: str) -> tuple[Any, str]:
    """The application of a service and the path of its endpoints."""
    module, root = SERVICES[name]
    return import_module(f"{__name__}.{module}").make(), root


class Hanging:
    """Records the states of endpoints that never return."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self) -> None:
        self.seen.append("began")
        try:
            await anyio.sleep_forever()
        finally:
            self.seen.append("ended")


hang_here = Hanging()


def log_here() -> None:
    """Log lines of an endpoint: through `logging`, and through `current_job`."""
    log = logging.getLogger("zoo.keeper")
    log.warning("feeding %s", "the seals")
    current_job.report_progress(0.5, "half of the fish")
    current_job.log("no herring left", level="STDOUT", bucket=2)
    try:
        {}["herring"]
    except KeyError:
        log.exception("no herring")


def digest(body: bytes) -> dict[str, Any]:
    """A short description of a body."""
    return {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def described(scope: Mapping[str, Any], body: bytes, **seen: Any) -> dict[str, Any]:
    """Everything an application sees of a request; header order is kept within a name, as in HTTP."""
    headers = sorted((pair for pair in scope["headers"] if pair[0] not in _OURS), key=lambda pair: pair[0])
    return {
        "method": scope["method"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode("latin-1"),
        "root_path": scope.get("root_path", ""),
        "query": scope["query_string"].decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers],
        "client": list(scope["client"]),
        "server": list(scope["server"]),
        "scheme": scope["scheme"],
        "http_version": scope["http_version"],
        "body": digest(body),
        **seen,
    }


def pairs(items: Iterable[tuple[str, Any]]) -> list[list[str]]:
    """Fields of a form or of a query, in order."""
    return [[name, str(value)] for name, value in items]
