"""The origin of a stored request's URL."""

from __future__ import annotations

from urllib.parse import quote

from queue_middleware.models import StoredRequest


def origin(scheme: str, host: str, root_path: str) -> str:
    """The URL in front of our prefix. `root_path` is what the server or a mount took for itself."""
    root = quote(root_path.rstrip("/"), safe="/%:@!$&'()*+,;=~-._") if root_path else ""
    return f"{scheme}://{host}{root}"


def origin_of(request: StoredRequest) -> str:
    """The same, as a submission that is stored came to it."""
    host = next((value.decode("latin-1") for name, value in request.headers if name == b"host"), None)
    if host is None:
        name, port = request.server or ("localhost", None)
        host = f"{name}:{port}" if port else name
    return origin(request.scheme, host, request.root_path)
