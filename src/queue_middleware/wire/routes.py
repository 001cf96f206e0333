"""The routes of fal's queue: which path means what, with which methods (fal queue contract, sections 1 and 13)."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

from queue_middleware.errors import MethodNotAllowed, UnknownRoute
from queue_middleware.request_id import is_request_id
from queue_middleware.value import Value

NAMESPACES = ("workflows", "comfy")
"""What may stand in front of an owner in the queue form."""

_NAME = "[A-Za-z0-9][A-Za-z0-9._~-]*"
_NAMESPACE = "|".join(NAMESPACES)
_OWNER = rf"(?!(?:{_NAMESPACE}|requests)/){_NAME}"
_ALIAS = rf"(?!requests(?:/|$)){_NAME}"
_APP = re.compile(rf"((?:/(?:{_NAMESPACE}))?/{_OWNER}/{_ALIAS})(/.*)?", re.DOTALL)
"""`/{owner}/{alias}`, with or without a namespace, and what follows."""
_OLD_APP = re.compile(r"/([0-9]+)-([A-Za-z0-9-]+)(/?|/requests(?:/.*)?)", re.DOTALL)
"""Owner and alias in one word, as they were before 2024; clients take it apart only where nothing else names the app."""


class Verb(StrEnum):
    """What a route of ours does."""

    SUBMIT = "submit"
    STATUS = "status"
    STREAM = "status/stream"
    RESPONSE = "response"
    CANCEL = "cancel"
    KEYS = "keys"
    DOCUMENT = "document"


METHODS: dict[Verb, tuple[str, ...]] = {
    Verb.SUBMIT: ("GET", "POST", "PUT", "PATCH", "DELETE"),
    Verb.STATUS: ("GET", "POST"),
    Verb.STREAM: ("GET",),
    Verb.RESPONSE: ("GET",),
    Verb.CANCEL: ("PUT", "POST"),
    Verb.KEYS: ("GET",),
    Verb.DOCUMENT: ("GET",),
}
"""The seeds disagree about status and cancel; both spellings are served."""

OPEN = frozenset({Verb.KEYS, Verb.DOCUMENT})
"""What everybody may see, also where keys are asked for."""

CHANGING = frozenset({Verb.SUBMIT, Verb.CANCEL})
"""What changes something, and is done only for pages of this site and of those that are allowed."""

OF_ONE_REQUEST = frozenset({Verb.STATUS, Verb.STREAM, Verb.RESPONSE, Verb.CANCEL})
"""What is asked about a request that is named by its id."""

FIXED: dict[str, Verb] = {"/.well-known/jwks.json": Verb.KEYS, "/openapi.json": Verb.DOCUMENT}

OF_REQUEST: dict[str, Verb] = {
    "status": Verb.STATUS,
    "status/stream": Verb.STREAM,
    "response": Verb.RESPONSE,
    "cancel": Verb.CANCEL,
}
"""What may stand behind `/requests/{id}/`, in every form."""

OF_ID: dict[str, Verb] = {
    "get": Verb.STATUS,
    "status": Verb.STATUS,
    "response": Verb.RESPONSE,
    "cancel": Verb.CANCEL,
}
"""What may stand behind `/{id}/`, in the gateway form only."""

OF_APP: dict[str, Verb] = {"": Verb.RESPONSE, **OF_REQUEST}
"""What may stand behind `/{owner}/{alias}/requests/{id}` and a slash."""
_MOST_WORDS = max(word.count("/") + 1 for word in OF_APP)


class Route(Value, frozen=True):
    """Where a path of ours leads."""

    verb: Verb
    request_id: str = ""
    target: str = ""
    """For a submission: the path of the call that is queued, percent-encoded."""
    app: str = ""
    """In the queue form `/owner/alias`, with its namespace in front if it has one; empty in the gateway form."""


REMEMBERED = 512
"""Characters. What is found out about shorter paths is remembered: the same are asked for again and again."""


def find_route(method: str, path: str) -> Route:
    """The route of a percent-encoded path, prefix taken off. Raises `UnknownRoute`, `MethodNotAllowed`.

    With and without a slash at the end: no client of fal follows redirects.
    """
    return _find_route(method, path) if len(path) < REMEMBERED else _find_route.__wrapped__(method, path)


@lru_cache(maxsize=1024)
def _find_route(method: str, path: str) -> Route:
    if path == "/submit" or path.startswith("/submit/"):
        route = Route(Verb.SUBMIT, target=path.removeprefix("/submit") or "/")
    elif path.startswith("/run/"):
        route = _app_route(path.removeprefix("/run"))
    else:
        route = _gateway_route(path)
    return _checked(method, route)


def find_host_route(method: str, path: str) -> Route:
    """The route of a whole path on a host that is the queue's: the queue form, and the keys. Raises as `find_route` does."""
    is_keys = FIXED.get(path.removesuffix("/")) is Verb.KEYS
    return _checked(method, Route(Verb.KEYS) if is_keys else _app_route(path))


def _checked(method: str, route: Route) -> Route:
    allowed = METHODS[route.verb]
    if method not in allowed and not (method == "HEAD" and allowed == ("GET",)):
        raise MethodNotAllowed(f"{method} is not possible here, {', '.join(allowed)} is", ", ".join(allowed))
    return route


def _gateway_route(path: str) -> Route:
    if (fixed := FIXED.get(path.removesuffix("/"))) is not None:
        return Route(fixed)
    match path.removesuffix("/").split("/")[1:]:
        case ["requests", request_id, *words] if (verb := OF_REQUEST.get("/".join(words))) is not None:
            return Route(verb, request_id)
        case [request_id, word] if word in OF_ID and request_id != "requests":
            return Route(OF_ID[word], request_id)
    raise UnknownRoute(f"there is no queue route {path[:200]!r}")


# --- the queue form


def _app_route(path: str) -> Route:
    """The route of `/{owner}/{alias}…`."""
    if old := _OLD_APP.fullmatch(path):
        app, rest = f"/{old[1]}/{old[2]}", old[3]
    elif new := _APP.fullmatch(path):
        app, rest = new[1], new[2] or ""
    else:
        raise UnknownRoute(f"there is no queue route {path[:200]!r}; an app is named by /owner/alias")
    return _request_route(app, rest) or Route(Verb.SUBMIT, target=rest or "/", app=app)


def _request_route(app: str, rest: str) -> Route | None:
    """The route of one request of an app; None for a path of the application's own.

    Directly behind the app the word `requests` is ours, whatever follows: asking for a bad id must not become a submission.
    Behind a path it is ours only in front of a UUID and one of our words.
    """
    if "/requests" not in rest:
        return None
    segments = rest.removesuffix("/").split("/")[1:]
    for place, segment in enumerate(segments):
        if segment != "requests":
            continue
        # One word more than any route has is enough to see that it is none; a path can hold thousands of them.
        request_id, *words = segments[place + 1 : place + 3 + _MOST_WORDS] or [""]
        verb = OF_APP.get("/".join(words))
        if place == 0 and (verb is None or len(segments) == 1):
            raise UnknownRoute(f"there is no queue route {app + rest[:200]!r}")
        if verb is not None and (place == 0 or is_request_id(request_id)):
            return Route(verb, request_id, app=app)
    return None
