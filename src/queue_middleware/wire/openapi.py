"""The queue's own routes as an OpenAPI 3.1 document: the words are in `openapi.json`, the routes in the tables that decide."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from typing import Any

from queue_middleware.version import VERSION

from .failures import STATUS
from .routes import FIXED, METHODS, OF_APP, OF_ID, OF_REQUEST, OPEN, Verb
from .taskoperations import task_operations

_KNOBS = (
    "fal_webhook", "fal_webhook_events", "fal_callback_timeout", "fal_max_queue_length", "start_timeout", "timeout", "priority",
    "no_retry", "retry_config", "store_io",
)  # fmt: skip
_WITH_BODY = ("POST", "PUT", "PATCH")
_SECURITY: list[dict[str, list[str]]] = [{name: []} for name in ("key", "bearer", "x_api_key")]

_SUMMARIES: dict[Verb, str] = {
    Verb.SUBMIT: "Submit a call. Method, path, query, headers and body are those of the call.",
    Verb.STATUS: "Where a request stands.",
    Verb.STREAM: "Where a request stands, as it changes, until it is done.",
    Verb.RESPONSE: "The answer of a request that is done.",
    Verb.CANCEL: "Cancel a request.",
    Verb.KEYS: "The keys of the webhooks' signatures.",
    Verb.DOCUMENT: "This document.",
}

_PARAMETERS: dict[Verb, tuple[str, ...]] = {Verb.SUBMIT: _KNOBS, Verb.STATUS: ("logs",), Verb.STREAM: ("logs",)}
"""Beside those in the path."""

_ANYWHERE: dict[int | str, str] = {500: "Failed", 503: "Unavailable"}

_RESPONSES: dict[Verb, dict[int | str, str]] = {
    Verb.SUBMIT: {
        200: "Submitted",
        400: "BadRequest",
        403: "Forbidden",
        404: "NotFound",
        408: "TooSlow",
        413: "TooLarge",
        414: "UriTooLong",
        422: "InvalidWebhook",
        429: "TooMany",
        431: "HeadersTooLarge",
        **_ANYWHERE,
    },
    Verb.STATUS: {200: "Done", 202: "NotDone", 400: "BadRequest", 404: "NotFound", **_ANYWHERE},
    Verb.STREAM: {200: "Events", 204: "Heard", 400: "BadRequest", 404: "NotFound", **_ANYWHERE},
    Verb.RESPONSE: {
        "default": "Answer",
        400: "AnswerOrRefusal",
        404: "AnswerOrRefusal",
        **dict.fromkeys(sorted(set(STATUS.values())), "AnswerOrFailure"),
    },
    Verb.CANCEL: {202: "CancelRequested", 400: "CancelRefused", 403: "Forbidden", 404: "NotFound", **_ANYWHERE},
    Verb.KEYS: {200: "Keys", **_ANYWHERE},
    Verb.DOCUMENT: {200: "Document", **_ANYWHERE},
}


def document(base: str, is_asked: bool = False, takes_keys: bool = False, longest_wait: float = 30 * 86_400.0) -> bytes:
    """The document in JSON. `base` is the URL of the prefix, as the client sees it.

    `is_asked`: clients have to say who they are; `takes_keys`: they may do so with one of `api_keys`. `longest_wait`: seconds
    for which an external service may be waited for.
    """
    rest = _rest(is_asked, takes_keys, longest_wait)
    return f'{{"openapi": "3.1.0", "servers": [{{"url": {json.dumps(base)}}}], {rest}'.encode("ascii")


@lru_cache(maxsize=4)
def _rest(is_asked: bool, takes_keys: bool, longest_wait: float) -> str:
    told: dict[str, Any] = json.loads((files(__package__) / "openapi.json").read_text(encoding="utf-8"))
    told["info"]["version"] = VERSION
    told["components"]["parameters"]["fal_callback_timeout"]["schema"]["maximum"] = longest_wait
    told["components"]["schemas"]["NewTask"]["properties"]["maxWaitTime"]["maximum"] = longest_wait
    closed = {path: _operations(path, verb) for path, verb in _paths() if verb not in OPEN}
    opened = {path: _operations(path, verb) for path, verb in _paths() if verb in OPEN}
    tasks_closed, tasks_open = task_operations()
    if is_asked:
        _close(closed, "Unauthorized", takes_keys)
        _close(tasks_closed, "TaskRefused", takes_keys)
    else:
        del told["components"]["responses"]["Unauthorized"]
    if not takes_keys:
        del told["components"]["securitySchemes"]
    told["paths"] = {**closed, **opened}
    for path, item in (*tasks_closed.items(), *tasks_open.items()):
        told["paths"].setdefault(path, {}).update(item)
    return json.dumps(told).removeprefix("{")


def _close(paths: dict[str, dict[str, Any]], refusal: str, takes_keys: bool) -> None:
    """Of accounts that the service asks about in its own way nothing can be said but that strangers are refused."""
    for item in paths.values():
        for operation in item.values():
            operation["responses"]["401"] = _ref("responses", refusal)
            if takes_keys:
                operation["security"] = _SECURITY


def _paths() -> Iterator[tuple[str, Verb]]:
    yield "/submit", Verb.SUBMIT
    yield "/submit/{path}", Verb.SUBMIT
    for word, verb in OF_REQUEST.items():
        yield f"/requests/{{request_id}}/{word}", verb
    for word, verb in OF_ID.items():
        yield f"/{{request_id}}/{word}", verb
    yield "/run/{owner}/{alias}", Verb.SUBMIT
    yield "/run/{owner}/{alias}/{path}", Verb.SUBMIT
    for word, verb in OF_APP.items():
        yield f"/run/{{owner}}/{{alias}}/requests/{{request_id}}/{word}".removesuffix("/"), verb
    yield from FIXED.items()


def _operations(path: str, verb: Verb) -> dict[str, Any]:
    parameters = [_ref("parameters", name) for name in (*re.findall(r"{(\w+)}", path), *_PARAMETERS.get(verb, ()))]
    responses = {str(status): _ref("responses", name) for status, name in _RESPONSES[verb].items()}
    operation: dict[str, Any] = {
        "summary": _SUMMARIES[verb],
        "tags": ["queue form" if path.startswith("/run/") else "gateway form"],
        "parameters": parameters,
    }
    if verb is Verb.SUBMIT:
        operation["callbacks"] = {"done": {"{$request.query.fal_webhook}": {"post": _WEBHOOK}}}
    return {method.lower(): {**_with_body(operation, method, verb), "responses": {**responses}} for method in METHODS[verb]}


def _with_body(operation: dict[str, Any], method: str, verb: Verb) -> dict[str, Any]:
    if verb is not Verb.SUBMIT or method not in _WITH_BODY:
        return operation
    body = {"description": "The body of the call, of any type.", "content": {"application/json": {}, "*/*": {}}}
    return {**operation, "requestBody": body}


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


_WEBHOOK = {
    "summary": "The request is done.",
    "description": "Signed as fal does and as Standard Webhooks do; repeated by schedule until it is answered 2xx.",
    "requestBody": {"content": {"application/json": {"schema": _ref("schemas", "Webhook")}}},
    "responses": {"2XX": {"description": "Taken."}},
}
