"""The routes of AsyncQueue below `/v1`: which path means what, with which method."""

from __future__ import annotations

from enum import StrEnum

from queue_middleware.errors import MethodNotAllowed, UnknownRoute
from queue_middleware.jobs.struct import Struct


class TaskOperation(StrEnum):
    """What a route does."""

    CREATE = "create"
    LIST = "list"
    READ = "read"
    CANCEL = "cancel"
    CALLBACK = "callback"
    SIGNAL = "signal"
    PROVIDERS = "providers"


ROUTES: dict[tuple[str, ...], dict[str, TaskOperation]] = {
    ("tasks",): {"POST": TaskOperation.CREATE, "GET": TaskOperation.LIST},
    ("tasks", "*"): {"GET": TaskOperation.READ},
    ("tasks", "*", "cancel"): {"POST": TaskOperation.CANCEL},
    ("callbacks", "*"): {"POST": TaskOperation.CALLBACK},
    ("signals", "*"): {"POST": TaskOperation.SIGNAL},
    ("providers",): {"GET": TaskOperation.PROVIDERS},
}
"""The segments of a path after `/v1`; a star stands for an id."""

PUBLIC = frozenset({TaskOperation.CALLBACK, TaskOperation.SIGNAL, TaskOperation.PROVIDERS})
"""Operations without authentication: their id is a secret, or they reveal nothing."""


CHANGING = frozenset({TaskOperation.CREATE, TaskOperation.CANCEL, TaskOperation.SIGNAL})
"""Operations that a page of another site must not make a browser send. A callback needs its secret id, so it is not one."""


class TaskRoute(Struct, frozen=True):
    """The operation at a path, and the id in the path."""

    private = frozenset({"id"})

    operation: TaskOperation
    id: str = ""
    """Id of a task, a callback or a signal, as the client sent it."""


def find_task_route(method: str, path: str) -> TaskRoute:
    """The route of a percent-encoded path after `/v1`. Raises `UnknownRoute`, `MethodNotAllowed`."""
    words = path.removesuffix("/").split("/")[1:]
    route = ROUTES.get(tuple(word if place != 1 else "*" for place, word in enumerate(words)))
    if route is None or "" in words:
        # The path is not repeated, because it may contain a secret.
        raise UnknownRoute("there is no such route; below /v1 are tasks, callbacks, signals and providers")
    allowed = {**route, "HEAD": route["GET"]} if "GET" in route else route
    if method not in allowed:
        raise MethodNotAllowed(f"method {method} is not allowed here; use {', '.join(route)}", ", ".join(route))
    return TaskRoute(allowed[method], words[1] if len(words) > 1 else "")
