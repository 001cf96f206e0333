"""The routes of `routes` as operations of the OpenAPI document; the schemas are in `openapi.json`."""

from __future__ import annotations

from typing import Any

from .routes import PATHS, OpsOperation

_SUMMARIES: dict[OpsOperation, str] = {
    OpsOperation.LIVE: "Check whether this process responds.",
    OpsOperation.READY: "Check whether this process can serve requests, and why not.",
    OpsOperation.METRICS: "Read the metrics of all processes, in a format of Prometheus.",
}

_RESPONSES: dict[OpsOperation, dict[int, str]] = {
    OpsOperation.LIVE: {200: "Live"},
    OpsOperation.READY: {200: "Ready", 503: "NotReady"},
    OpsOperation.METRICS: {200: "Metrics", **dict.fromkeys((401, 404, 429, 501, 503), "MetricsRefused")},
}


def ops_operations() -> dict[str, dict[str, Any]]:
    """Path items; none requires authentication."""
    return {path: {"get": _operation(kind)} for path, kind in PATHS.items()}


def _operation(kind: OpsOperation) -> dict[str, Any]:
    responses = {str(status): {"$ref": f"#/components/responses/{name}"} for status, name in _RESPONSES[kind].items()}
    return {"summary": _SUMMARIES[kind], "tags": ["operation"], "parameters": [], "responses": responses}
