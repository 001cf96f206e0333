"""AsyncQueue's routes as operations of the OpenAPI document; the words of bodies are in `openapi.json`."""

from __future__ import annotations

from typing import Any

from .taskroutes import OPEN, ROUTES, TaskVerb

_Item = dict[str, Any]

_SUMMARIES: dict[TaskVerb, str] = {
    TaskVerb.CREATE: "Make a task: a call of this application, or of a host that the service allows.",
    TaskVerb.LIST: "One's own tasks, the newest first. Only where clients have to say who they are.",
    TaskVerb.READ: "Where a task stands, and its result.",
    TaskVerb.CANCEL: "Cancel a task.",
    TaskVerb.CALLBACK: "For the provider: news of a task, or its end.",
    TaskVerb.SIGNAL: "End a task that waits for a signal.",
    TaskVerb.PROVIDERS: "The providers that are known by name.",
}

_IDS: dict[TaskVerb, str] = {
    TaskVerb.READ: "task_id",
    TaskVerb.CANCEL: "task_id",
    TaskVerb.CALLBACK: "callback_id",
    TaskVerb.SIGNAL: "signal_token",
}

_PARAMETERS: dict[TaskVerb, tuple[str, ...]] = {TaskVerb.LIST: ("task_status", "limit", "offset"), TaskVerb.READ: ("wait",)}

_BODIES: dict[TaskVerb, _Item] = {
    TaskVerb.CREATE: {"$ref": "#/components/schemas/NewTask"},
    TaskVerb.CALLBACK: {},
    TaskVerb.SIGNAL: {"$ref": "#/components/schemas/Signal"},
}
"""Schemas of what is sent."""

_ANSWERS: dict[TaskVerb, tuple[int, str]] = {
    TaskVerb.CREATE: (201, "CreatedTask"),
    TaskVerb.LIST: (200, "TaskPage"),
    TaskVerb.READ: (200, "OneTask"),
    TaskVerb.CANCEL: (200, "OneTask"),
    TaskVerb.CALLBACK: (200, "Accepted"),
    TaskVerb.SIGNAL: (200, "Accepted"),
    TaskVerb.PROVIDERS: (200, "Providers"),
}

_REFUSALS: dict[TaskVerb, tuple[int, ...]] = {
    TaskVerb.CREATE: (400, 403, 413, 414, 429),
    TaskVerb.LIST: (400, 403),
    TaskVerb.READ: (400, 403, 404),
    TaskVerb.CANCEL: (400, 403, 404, 409),
    TaskVerb.CALLBACK: (400, 401, 404, 409, 413, 429),
    TaskVerb.SIGNAL: (400, 404, 409, 413, 429),
    TaskVerb.PROVIDERS: (),
}
"""Beside 500 and 503."""


def task_operations() -> tuple[dict[str, _Item], dict[str, _Item]]:
    """Path items of what needs a key, where keys are asked for, and of what never does."""
    closed: dict[str, _Item] = {}
    opened: dict[str, _Item] = {}
    for words, methods in ROUTES.items():
        for method, verb in methods.items():
            path = "/v1/" + "/".join(words).replace("*", f"{{{_IDS.get(verb)}}}")
            items = opened if verb in OPEN else closed
            items.setdefault(path, {})[method.lower()] = _operation(verb)
    return closed, opened


def _operation(verb: TaskVerb) -> _Item:
    status, answer = _ANSWERS[verb]
    ids = (_IDS[verb],) if verb in _IDS else ()
    operation: _Item = {
        "summary": _SUMMARIES[verb],
        "tags": ["tasks"],
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in (*ids, *_PARAMETERS.get(verb, ()))],
        "responses": {
            str(status): {"$ref": f"#/components/responses/{answer}"},
            **{str(refused): {"$ref": "#/components/responses/TaskRefused"} for refused in (*_REFUSALS[verb], 500, 503)},
        },
    }
    if verb in _BODIES:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _BODIES[verb]}}}
    if verb is TaskVerb.CREATE:
        operation["callbacks"] = {"done": {"{$request.body#/onCompleteUrl}": {"post": _COMPLETION}}}
    return operation


_COMPLETION: _Item = {
    "summary": "The task has ended.",
    "description": "Signed as every webhook of the queue; repeated by schedule until it is answered 2xx.",
    "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/TaskCompletion"}}}},
    "responses": {"2XX": {"description": "Taken."}},
}
