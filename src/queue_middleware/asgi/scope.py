"""Builds the ASGI scope of a replay from a stored request, and the origin that the request was sent to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from queue_middleware.jobs.models import StoredRequest

from .mount import restore_mount

SCOPE_KEY = "queue_middleware.request_id"
"""Key in the scope of a replay. It is not a header, because a header could be forged."""


def build_scope(request: StoredRequest, request_id: str, attempt: int, state: Mapping[str, Any] | None) -> dict[str, Any]:
    """The ASGI scope of a replay. `state` is that of the lifespan; each replay gets a shallow copy."""
    headers = [*request.headers, (b"accept-encoding", b"identity"), (b"x-fal-request-id", request_id.encode())]
    if attempt > 1:
        headers.append((b"x-fal-attempt", b"%d" % attempt))
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        headers.append((b"content-length", b"%d" % len(request.body)))
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version,
        "method": request.method,
        "scheme": request.scheme,
        "path": decode_path(request.raw_path),
        "raw_path": request.raw_path,
        "query_string": request.query,
        "root_path": request.root_path,
        "headers": headers,
        "client": request.client,
        "server": request.server,
        SCOPE_KEY: request_id,
    }
    if request.mount is not None:
        restore_mount(request.mount, scope)
    if state is not None:
        scope["state"] = dict(state)
    return scope


@lru_cache(maxsize=256)
def decode_path(raw_path: bytes) -> str:
    """Decode a percent-encoded path as servers do."""
    return unquote_to_bytes(raw_path).decode("utf-8", "replace")


def origin(scheme: str, host: str, root_path: str) -> str:
    """URL in front of the queue's prefix. `root_path` is the part of the path that the server or a mount has consumed."""
    root = quote(root_path.rstrip("/"), safe="/%:@!$&'()*+,;=~-._") if root_path else ""
    return f"{scheme}://{host}{root}"


def request_origin(request: StoredRequest) -> str:
    """The origin that a stored request was sent to: its `Host` header, or else the server's own address."""
    host = next((value.decode("latin-1") for name, value in request.headers if name == b"host"), None)
    if host is None:
        name, port = request.server or ("localhost", None)
        host = f"{name}:{port}" if port else name
    return origin(request.scheme, host, request.root_path)
