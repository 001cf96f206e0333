"""AsyncQueue's routes as operations of the OpenAPI document; the schemas are in `openapi.json`."""

from __future__ import annotations

from typing import Any

from .routes import PUBLIC, ROUTES, TaskOperation

_Item = dict[str, Any]

_SUMMARIES: dict[TaskOperation, str] = {
    TaskOperation.CREATE: "Create a task: a call of this application or of an allowed external host.",
    TaskOperation.LIST: "List the client's own tasks, newest first. Requires authentication.",
    TaskOperation.READ: "Get the status of a task and its result.",
    TaskOperation.CANCEL: "Cancel a task.",
    TaskOperation.CALLBACK: "Report the progress or the result of a task; called by the provider.",
    TaskOperation.SIGNAL: "Complete a task that waits for a signal.",
    TaskOperation.PROVIDERS: "List the built-in providers.",
}

_IDS: dict[TaskOperation, str] = {
    TaskOperation.READ: "task_id",
    TaskOperation.CANCEL: "task_id",
    TaskOperation.CALLBACK: "callback_id",
    TaskOperation.SIGNAL: "signal_token",
}

_PARAMETERS: dict[TaskOperation, tuple[str, ...]] = {
    TaskOperation.CREATE: ("idempotency_key",),
    TaskOperation.LIST: ("task_status", "limit", "offset"),
    TaskOperation.READ: ("wait", "prefer_status"),
}

_BODIES: dict[TaskOperation, _Item] = {
    TaskOperation.CREATE: {"$ref": "#/components/schemas/NewTask"},
    TaskOperation.CALLBACK: {},
    TaskOperation.SIGNAL: {"$ref": "#/components/schemas/Signal"},
}
"""Schemas of request bodies."""

_RESPONSES: dict[TaskOperation, tuple[int, str]] = {
    TaskOperation.CREATE: (201, "CreatedTask"),
    TaskOperation.LIST: (200, "TaskPage"),
    TaskOperation.READ: (200, "OneTask"),
    TaskOperation.CANCEL: (200, "OneTask"),
    TaskOperation.CALLBACK: (200, "Accepted"),
    TaskOperation.SIGNAL: (200, "Accepted"),
    TaskOperation.PROVIDERS: (200, "Providers"),
}

_REFUSALS: dict[TaskOperation, tuple[int, ...]] = {
    TaskOperation.CREATE: (400, 403, 413, 414, 422, 429),
    TaskOperation.LIST: (400, 403),
    TaskOperation.READ: (400, 403, 404),
    TaskOperation.CANCEL: (400, 403, 404, 409),
    TaskOperation.CALLBACK: (400, 401, 404, 409, 413, 429),
    TaskOperation.SIGNAL: (400, 404, 409, 413, 429),
    TaskOperation.PROVIDERS: (),
}
"""Besides 500 and 503."""


def task_operations() -> tuple[dict[str, _Item], dict[str, _Item]]:
    """Path items of routes that require authentication if it is configured, and of those that never do."""
    closed: dict[str, _Item] = {}
    opened: dict[str, _Item] = {}
    for words, methods in ROUTES.items():
        for method, kind in methods.items():
            path = "/v1/" + "/".join(words).replace("*", f"{{{_IDS.get(kind)}}}")
            items = opened if kind in PUBLIC else closed
            items.setdefault(path, {})[method.lower()] = _operation(kind)
    return closed, opened


def _operation(kind: TaskOperation) -> _Item:
    status, response = _RESPONSES[kind]
    ids = (_IDS[kind],) if kind in _IDS else ()
    operation: _Item = {
        "summary": _SUMMARIES[kind],
        "tags": ["tasks"],
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in (*ids, *_PARAMETERS.get(kind, ()))],
        "responses": {
            str(status): {"$ref": f"#/components/responses/{response}"},
            **{str(refused): {"$ref": "#/components/responses/TaskRefused"} for refused in (*_REFUSALS[kind], 500, 503)},
        },
    }
    if kind in _BODIES:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _BODIES[kind]}}}
    if kind is TaskOperation.CREATE:
        operation["callbacks"] = {"done": {"{$request.body#/onCompleteUrl}": {"post": _COMPLETION}}}
    return operation


_COMPLETION: _Item = {
    "summary": "The task is finished.",
    "description": "Signed like every webhook of the queue; retried on a schedule until the response is 2xx.",
    "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/TaskCompletion"}}}},
    "responses": {"2XX": {"description": "Accepted."}},
}
