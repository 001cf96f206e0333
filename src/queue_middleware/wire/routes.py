"""The routes of fal's queue: which path means what, with which methods (fal queue contract, sections 1 and 13)."""

from __future__ import annotations

from enum import StrEnum

from queue_middleware.errors import MethodNotAllowed, UnknownRoute
from queue_middleware.models import Value


class Verb(StrEnum):
    """What a route of ours does."""

    SUBMIT = "submit"
    STATUS = "status"
    RESPONSE = "response"
    CANCEL = "cancel"
    KEYS = "keys"


METHODS: dict[Verb, tuple[str, ...]] = {
    Verb.SUBMIT: ("GET", "POST", "PUT", "PATCH", "DELETE"),
    Verb.STATUS: ("GET", "POST"),
    Verb.RESPONSE: ("GET",),
    Verb.CANCEL: ("PUT", "POST"),
    Verb.KEYS: ("GET",),
}
"""The seeds disagree about status and cancel; both spellings are served."""

_OF_REQUEST: dict[str, Verb] = {
    "status": Verb.STATUS,
    "response": Verb.RESPONSE,
    "cancel": Verb.CANCEL,
}
"""What may stand behind `/requests/{id}/`, in every form."""

_OF_ID: dict[str, Verb] = {
    "get": Verb.STATUS,
    "status": Verb.STATUS,
    "response": Verb.RESPONSE,
    "cancel": Verb.CANCEL,
}
"""What may stand behind `/{id}/`, in the gateway form only."""


class Route(Value, frozen=True):
    """Where a path of ours leads."""

    verb: Verb
    request_id: str = ""
    target: str = ""
    """For a submission: the path of the call that is queued, percent-encoded."""


def find_route(method: str, path: str) -> Route:
    """The route of a percent-encoded path, prefix taken off. Raises `UnknownRoute`, `MethodNotAllowed`.

    With and without a slash at the end: no client of fal follows redirects.
    """
    if path == "/submit" or path.startswith("/submit/"):
        route = Route(Verb.SUBMIT, target=path.removeprefix("/submit") or "/")
    else:
        route = _fixed_route(path)
    allowed = METHODS[route.verb]
    if method not in allowed and not (method == "HEAD" and allowed == ("GET",)):
        raise MethodNotAllowed(f"{method} is not possible here, {', '.join(allowed)} is", ", ".join(allowed))
    return route


def _fixed_route(path: str) -> Route:
    match path.removesuffix("/").split("/")[1:]:
        case ["requests", request_id, *words] if (verb := _OF_REQUEST.get("/".join(words))) is not None:
            return Route(verb, request_id)
        case [request_id, word] if word in _OF_ID and request_id != "requests":
            return Route(_OF_ID[word], request_id)
        case [".well-known", "jwks.json"]:
            return Route(Verb.KEYS)
    raise UnknownRoute(f"there is no queue route {path[:200]!r}")
