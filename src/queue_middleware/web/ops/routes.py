"""The routes below the prefix for what operates the service: which path means what."""

from __future__ import annotations

from enum import StrEnum

from queue_middleware.errors import MethodNotAllowed

METHODS = ("GET", "HEAD")


class OpsOperation(StrEnum):
    """What a route does."""

    LIVE = "live"
    READY = "ready"
    METRICS = "metrics"


PATHS: dict[str, OpsOperation] = {
    "/health/live": OpsOperation.LIVE,
    "/health/ready": OpsOperation.READY,
    "/metrics": OpsOperation.METRICS,
}
"""The operation of each path after the prefix, which may end with a slash."""


def is_ops_path(path: str) -> bool:
    """Whether a path after the prefix is one of these."""
    return path.removesuffix("/") in PATHS


def find_ops_route(method: str, path: str) -> OpsOperation:
    """The operation of a path for which `is_ops_path` is true. Raises `MethodNotAllowed`."""
    if method not in METHODS:
        raise MethodNotAllowed(f"method {method} is not allowed here; use GET", "GET")
    return PATHS[path.removesuffix("/")]
