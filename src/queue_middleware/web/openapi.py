"""The queue's routes as an OpenAPI 3.1 document: schemas come from `openapi.json`, paths from the routing tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from typing import Any

from queue_middleware.jobs.failures import STATUS
from queue_middleware.webhooks.formats.user_agent import VERSION

from .asyncqueue.operations import task_operations
from .fal.routes import APP_SUFFIXES, FIXED, ID_SUFFIXES, METHODS, PUBLIC, REQUEST_SUFFIXES, Operation
from .ops.operations import ops_operations

_SUBMIT_OPTIONS = (
    "fal_webhook", "fal_webhook_events", "fal_callback_timeout", "fal_max_queue_length", "start_timeout", "timeout", "priority",
    "no_retry", "retry_config", "store_io", "idempotency_key", "prefer_submit",
)  # fmt: skip
_WITH_BODY = ("POST", "PUT", "PATCH")
_SECURITY: list[dict[str, list[str]]] = [{name: []} for name in ("key", "bearer", "x_api_key")]

_SUMMARIES: dict[Operation, str] = {
    Operation.SUBMIT: "Submit a call. Method, path, query, headers and body are those of the call.",
    Operation.STATUS: "Get the status of a request.",
    Operation.STREAM: "Stream the status of a request until it is completed.",
    Operation.RESPONSE: "Get the response of a completed request.",
    Operation.CANCEL: "Cancel a request.",
    Operation.KEYS: "Get the keys that verify webhook signatures.",
    Operation.DOCUMENT: "Get this document.",
}

_PARAMETERS: dict[Operation, tuple[str, ...]] = {
    Operation.SUBMIT: _SUBMIT_OPTIONS,
    Operation.STATUS: ("logs", "prefer_status"),
    Operation.STREAM: ("logs",),
    Operation.RESPONSE: ("prefer_response",),
}
"""Parameters besides those in the path."""

_ANYWHERE: dict[int | str, str] = {500: "Failed", 503: "Unavailable"}

_RESPONSES: dict[Operation, dict[int | str, str]] = {
    Operation.SUBMIT: {
        200: "Submitted",
        400: "BadRequest",
        403: "Forbidden",
        404: "NotFound",
        408: "TooSlow",
        413: "TooLarge",
        414: "UriTooLong",
        422: "Unprocessable",
        429: "TooMany",
        431: "HeadersTooLarge",
        **_ANYWHERE,
    },
    Operation.STATUS: {200: "Done", 202: "NotDone", 400: "BadRequest", 404: "NotFound", **_ANYWHERE},
    Operation.STREAM: {200: "Events", 204: "StreamEnded", 400: "BadRequest", 404: "NotFound", **_ANYWHERE},
    Operation.RESPONSE: {
        "default": "ApplicationResponse",
        400: "ResponseOrRefusal",
        404: "ResponseOrRefusal",
        **dict.fromkeys(sorted(set(STATUS.values())), "ResponseOrFailure"),
    },
    Operation.CANCEL: {202: "CancelRequested", 400: "CancelRefused", 403: "Forbidden", 404: "NotFound", **_ANYWHERE},
    Operation.KEYS: {200: "Keys", **_ANYWHERE},
    Operation.DOCUMENT: {200: "Document", **_ANYWHERE},
}


def document(
    base: str, *, needs_authentication: bool = False, accepts_keys: bool = False, max_wait: float = 30 * 86_400.0
) -> bytes:
    """Render the document as JSON. `base` is the URL of the prefix, as the client uses it.

    `needs_authentication`: requests are authenticated; `accepts_keys`: one of `api_keys` does it. `max_wait`: the longest time,
    in seconds, that a job may await an external service.
    """
    rest = _rest(needs_authentication, accepts_keys, max_wait)
    return f'{{"openapi": "3.1.0", "servers": [{{"url": {json.dumps(base)}}}], {rest}'.encode("ascii")


@lru_cache(maxsize=4)
def _rest(needs_authentication: bool, accepts_keys: bool, max_wait: float) -> str:
    document: dict[str, Any] = json.loads((files(__package__) / "openapi.json").read_text(encoding="utf-8"))
    document["info"]["version"] = VERSION
    document["components"]["parameters"]["fal_callback_timeout"]["schema"]["maximum"] = max_wait
    document["components"]["schemas"]["NewTask"]["properties"]["maxWaitTime"]["maximum"] = max_wait
    closed = {path: _operations(path, kind) for path, kind in _paths() if kind not in PUBLIC}
    opened = {path: _operations(path, kind) for path, kind in _paths() if kind in PUBLIC}
    tasks_closed, tasks_open = task_operations()
    if needs_authentication:
        _close(closed, "Unauthorized", accepts_keys)
        _close(tasks_closed, "TaskRefused", accepts_keys)
    else:
        del document["components"]["responses"]["Unauthorized"]
    if not accepts_keys:
        del document["components"]["securitySchemes"]
    document["paths"] = {**closed, **opened}
    for path, item in (*tasks_closed.items(), *tasks_open.items(), *ops_operations().items()):
        document["paths"].setdefault(path, {}).update(item)
    return json.dumps(document).removeprefix("{")


def _close(paths: dict[str, dict[str, Any]], refusal: str, accepts_keys: bool) -> None:
    """Add 401, and the security schemes if keys are accepted: what `authenticate` accepts cannot be described."""
    for item in paths.values():
        for operation in item.values():
            operation["responses"]["401"] = _ref("responses", refusal)
            if accepts_keys:
                operation["security"] = _SECURITY


def _paths() -> Iterator[tuple[str, Operation]]:
    yield "/submit", Operation.SUBMIT
    yield "/submit/{path}", Operation.SUBMIT
    for word, kind in REQUEST_SUFFIXES.items():
        yield f"/requests/{{request_id}}/{word}", kind
    for word, kind in ID_SUFFIXES.items():
        yield f"/{{request_id}}/{word}", kind
    yield "/run/{owner}/{alias}", Operation.SUBMIT
    yield "/run/{owner}/{alias}/{path}", Operation.SUBMIT
    for word, kind in APP_SUFFIXES.items():
        yield f"/run/{{owner}}/{{alias}}/requests/{{request_id}}/{word}".removesuffix("/"), kind
    yield from FIXED.items()


def _operations(path: str, kind: Operation) -> dict[str, Any]:
    parameters = [_ref("parameters", name) for name in (*re.findall(r"{(\w+)}", path), *_PARAMETERS.get(kind, ()))]
    responses = {str(status): _ref("responses", name) for status, name in _RESPONSES[kind].items()}
    operation: dict[str, Any] = {
        "summary": _SUMMARIES[kind],
        "tags": ["queue form" if path.startswith("/run/") else "gateway form"],
        "parameters": parameters,
    }
    if kind is Operation.SUBMIT:
        operation["callbacks"] = {"done": {"{$request.query.fal_webhook}": {"post": _WEBHOOK}}}
    return {method.lower(): {**_with_body(operation, method, kind), "responses": {**responses}} for method in METHODS[kind]}


def _with_body(operation: dict[str, Any], method: str, kind: Operation) -> dict[str, Any]:
    if kind is not Operation.SUBMIT or method not in _WITH_BODY:
        return operation
    body = {"description": "The body of the call, of any media type.", "content": {"application/json": {}, "*/*": {}}}
    return {**operation, "requestBody": body}


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


_WEBHOOK = {
    "summary": "The request is completed.",
    "description": "Signed in the formats of fal and of Standard Webhooks; retried on a schedule until the response is 2xx.",
    "requestBody": {"content": {"application/json": {"schema": _ref("schemas", "Webhook")}}},
    "responses": {"2XX": {"description": "Accepted."}},
}
