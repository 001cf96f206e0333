"""Sentry's trace in the headers of stored requests: `sentry-trace`, and the entries of `baggage` that begin with `sentry-`."""

from __future__ import annotations

import sentry_sdk

from queue_middleware.jobs.models import Headers, StoredRequest
from queue_middleware.jobs.task_spec import Task

_TRACE = "sentry-trace"
_BAGGAGE = "baggage"
_NAMES = frozenset({_TRACE.encode(), _BAGGAGE.encode()})


def trace_in(headers: Headers) -> dict[str, str]:
    """The headers as `sentry_sdk.continue_trace` reads them; without a trace in them, a new one begins there."""
    found = {name: [value.decode("latin-1") for key, value in headers if key == name.encode()] for name in (_TRACE, _BAGGAGE)}
    return {name: ",".join(values) for name, values in found.items() if values}


def with_active_trace(request: StoredRequest) -> StoredRequest:
    """The request with the trace of the active span in place of its own. Baggage of other systems stays."""
    present = trace_in(request.headers).get(_BAGGAGE, "").split(",")
    entries = [entry for entry in present if entry.strip() and not entry.strip().startswith("sentry-")]
    if own := sentry_sdk.get_baggage():
        entries.append(own)
    trace = {_TRACE: sentry_sdk.get_traceparent(), _BAGGAGE: ",".join(entries)}
    added = tuple((name.encode(), value.encode("latin-1")) for name, value in trace.items() if value)
    return request.replace(headers=(*(pair for pair in request.headers if pair[0] not in _NAMES), *added))


def stays_here(task: Task | None) -> bool:
    """Whether the headers of a request reach only the wrapped application. Those of other tasks are sent to other services."""
    return task is None or not (task.spec.is_external or task.spec.poll)
