"""The routes of fal's queue: which path means what, with which methods (docs/reference/protocols/fal.md, sections 1 and 13)."""

from __future__ import annotations

import re
from enum import StrEnum

from queue_middleware.errors import MethodNotAllowed, UnknownRoute
from queue_middleware.jobs.ids import is_request_id
from queue_middleware.jobs.struct import Struct

NAMESPACES = ("workflows", "comfy")
"""What may precede an owner in the queue form."""

_NAME = "[A-Za-z0-9][A-Za-z0-9._~-]*"
_NAMESPACE = "|".join(NAMESPACES)
_OWNER = rf"(?!(?:{_NAMESPACE}|requests)/){_NAME}"
_ALIAS = rf"(?!requests(?:/|$)){_NAME}"
_APP = re.compile(rf"((?:/(?:{_NAMESPACE}))?/{_OWNER}/{_ALIAS})(/.*)?", re.DOTALL)
"""`/{owner}/{alias}`, with or without a namespace, and the rest of the path."""
_OLD_APP = re.compile(r"/([0-9]+)-([A-Za-z0-9-]+)(/?|/requests(?:/.*)?)", re.DOTALL)
"""Owner and alias in one segment, the form before 2024. If a segment other than `requests` follows, the first is an owner."""


class Operation(StrEnum):
    """What a route of the queue does."""

    SUBMIT = "submit"
    STATUS = "status"
    STREAM = "status/stream"
    RESPONSE = "response"
    CANCEL = "cancel"
    KEYS = "keys"
    DOCUMENT = "document"


METHODS: dict[Operation, tuple[str, ...]] = {
    Operation.SUBMIT: ("GET", "POST", "PUT", "PATCH", "DELETE"),
    Operation.STATUS: ("GET", "POST"),
    Operation.STREAM: ("GET",),
    Operation.RESPONSE: ("GET",),
    Operation.CANCEL: ("PUT", "POST"),
    Operation.KEYS: ("GET",),
    Operation.DOCUMENT: ("GET",),
}
"""fal's documents and clients differ about the methods of status and cancel; all of them are served."""

PUBLIC = frozenset({Operation.KEYS, Operation.DOCUMENT})
"""Operations without authentication."""

CHANGING = frozenset({Operation.SUBMIT, Operation.CANCEL})
"""Operations that a page of another site must not make a browser send."""

FIXED: dict[str, Operation] = {"/.well-known/jwks.json": Operation.KEYS, "/openapi.json": Operation.DOCUMENT}

REQUEST_SUFFIXES: dict[str, Operation] = {
    "status": Operation.STATUS,
    "status/stream": Operation.STREAM,
    "response": Operation.RESPONSE,
    "cancel": Operation.CANCEL,
}
"""What may follow `/requests/{id}/`, in every form."""

ID_SUFFIXES: dict[str, Operation] = {
    "get": Operation.STATUS,
    "status": Operation.STATUS,
    "response": Operation.RESPONSE,
    "cancel": Operation.CANCEL,
}
"""What may follow `/{id}/`, in the gateway form only."""

APP_SUFFIXES: dict[str, Operation] = {"": Operation.RESPONSE, **REQUEST_SUFFIXES}
"""What may follow `/{owner}/{alias}/requests/{id}` and a slash."""
_MOST_WORDS = max(word.count("/") + 1 for word in APP_SUFFIXES)


class Route(Struct, frozen=True):
    """The operation at a path, and the parameters in the path."""

    operation: Operation
    request_id: str = ""
    target: str = ""
    """For a submission: the path of the call that is queued, percent-encoded."""
    app: str = ""
    """In the queue form `/owner/alias`, with its namespace in front if it has one; empty in the gateway form."""


def find_route(method: str, path: str) -> Route:
    """The route of a percent-encoded path after the prefix. Raises `UnknownRoute`, `MethodNotAllowed`.

    A slash at the end is accepted, because no client of fal follows redirects.
    """
    if path == "/submit" or path.startswith("/submit/"):
        route = Route(Operation.SUBMIT, target=path.removeprefix("/submit") or "/")
    elif path.startswith("/run/"):
        route = _app_route(path.removeprefix("/run"))
    else:
        route = _gateway_route(path)
    return _checked(method, route)


def find_host_route(method: str, path: str) -> Route:
    """The route of a path at one of `fal_hosts`: the queue form, and the keys. Raises as `find_route` does."""
    is_keys = FIXED.get(path.removesuffix("/")) is Operation.KEYS
    return _checked(method, Route(Operation.KEYS) if is_keys else _app_route(path))


def _checked(method: str, route: Route) -> Route:
    allowed = METHODS[route.operation]
    if method not in allowed and not (method == "HEAD" and allowed == ("GET",)):
        raise MethodNotAllowed(f"method {method} is not allowed here; use {', '.join(allowed)}", ", ".join(allowed))
    return route


def _gateway_route(path: str) -> Route:
    if (fixed := FIXED.get(path.removesuffix("/"))) is not None:
        return Route(fixed)
    match path.removesuffix("/").split("/")[1:]:
        case ["requests", request_id, *words] if (operation := REQUEST_SUFFIXES.get("/".join(words))) is not None:
            return Route(operation, request_id)
        case [request_id, word] if word in ID_SUFFIXES and request_id != "requests":
            return Route(ID_SUFFIXES[word], request_id)
    hint = "" if path.startswith("/requests") else "; to queue a call, put /submit in front of its path"
    raise UnknownRoute(f"there is no queue route {path[:200]!r}{hint}")


# --- the queue form


def _app_route(path: str) -> Route:
    """The route of `/{owner}/{alias}…`."""
    if old := _OLD_APP.fullmatch(path):
        app, rest = f"/{old[1]}/{old[2]}", old[3]
    elif new := _APP.fullmatch(path):
        app, rest = new[1], new[2] or ""
    else:
        raise UnknownRoute(f"there is no queue route {path[:200]!r}; an app is named by /owner/alias")
    return _request_route(app, rest) or Route(Operation.SUBMIT, target=rest or "/", app=app)


def _request_route(app: str, rest: str) -> Route | None:
    """The route of one request of an app; None for a path of the application itself.

    Directly after the app, `requests` belongs to the queue whatever follows: a request with a bad id must not become a
    submission. After a path it belongs to the queue only before a UUID and one of `APP_SUFFIXES`.
    """
    if "/requests" not in rest:
        return None
    segments = rest.removesuffix("/").split("/")[1:]
    for place, segment in enumerate(segments):
        if segment != "requests":
            continue
        # One segment more than any route has is enough to see that there is no route; a path can have thousands of segments.
        request_id, *words = segments[place + 1 : place + 3 + _MOST_WORDS] or [""]
        operation = APP_SUFFIXES.get("/".join(words))
        if place == 0 and (operation is None or len(segments) == 1):
            raise UnknownRoute(f"there is no queue route {app + rest[:200]!r}")
        if operation is not None and (place == 0 or is_request_id(request_id)):
            return Route(operation, request_id, app=app)
    return None
