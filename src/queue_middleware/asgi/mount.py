"""Scope entries added by mounts around the queue (Starlette: `Mount`, `Host`, `Starlette.__call__`).

There are two kinds. Objects of the process (`app`, `router`, `endpoint`) are remembered from the scopes that the queue sees.
Values of one request (the root path of the outermost application, path parameters of the mount) are stored with the request.
What middlewares in front put into the scope (`user`, `session`, `state`) belongs to one client and is neither remembered nor
stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from queue_middleware.jobs.models import Mount

PROCESS_KEYS = ("app", "router", "endpoint")
"""`Request.app`, `Request.url_for`. The queue's own application sets them again where it is a framework's."""


def read_mount(scope: Mapping[str, Any]) -> Mount | None:
    """The entries of a scope that have to be stored; None without a mount around the queue.

    Parameters are kept whose types are those of Starlette's own convertors: `str`, `path`, `int`, `float`, `uuid`.
    """
    if "path_params" not in scope and "app_root_path" not in scope:
        return None
    params: dict[str, str | int | float] = {}
    uuids: list[str] = []
    for name, value in scope.get("path_params", {}).items():
        if isinstance(value, UUID):
            uuids.append(name)
            params[name] = str(value)
        elif isinstance(value, str | int | float):
            params[name] = value
    return Mount(scope.get("app_root_path"), params, tuple(uuids))


def restore_mount(mount: Mount, scope: dict[str, Any]) -> None:
    """Put the entries of a stored mount into the scope of a replay."""
    scope["path_params"] = {
        name: UUID(str(value)) if name in mount.uuids else value for name, value in mount.path_params.items()
    }
    if mount.app_root_path is not None:
        scope["app_root_path"] = mount.app_root_path


def process_objects(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a scope that are the same for every request."""
    return {key: scope[key] for key in PROCESS_KEYS if key in scope}
