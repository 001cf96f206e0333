"""Adds the request that is being replayed to the log records of the application: for `logging`, and for structlog.

Both read the running context. The coroutines and tasks of a handler have it, and so have threads that are started with a copy
of it: those of `asyncio.to_thread`, anyio, Starlette, asgiref and a2wsgi. Records of any other thread count as made outside a
request, unless `contextvars.copy_context().run` starts its work.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from .worker.job_context import active_job

__all__ = ["RequestFilter", "add_request"]


class RequestFilter(logging.Filter):
    """A filter that keeps every record and adds the attributes `queue_request_id`, `queue_attempt` and `queue_route`.

    Add it to handlers, not to loggers: a logger does not apply its filters to the records of its children. A handler that
    passes records to another thread, such as `QueueHandler`, needs the filter itself, because the other thread has another
    context. Attributes that a record already has stay as they are. Records of the logger `queue_middleware` get the request
    that they are about.

    Outside a request all three are `missing`, by default an empty text, so that a format such as `%(queue_request_id)s` can
    always be written. The attempt is an integer from 1. The route is a template, never a path that a client has sent.
    """

    def __init__(self, missing: object = "") -> None:
        super().__init__()
        self._missing = missing

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes. Always true."""
        if not hasattr(record, "queue_request_id"):
            request_id, attempt, route = _request_of(record)
            record.queue_request_id = self._missing if request_id is None else request_id
            record.queue_attempt = self._missing if attempt is None else attempt
            record.queue_route = self._missing if route is None else route
        return True


def _request_of(record: logging.LogRecord) -> tuple[object, object, object]:
    """Request id, attempt and route: of the event that the record reports, else of the context."""
    if hasattr(record, "queue_event") and hasattr(record, "request_id"):
        return record.request_id, getattr(record, "attempt", None), getattr(record, "route", None)
    job = active_job()
    return (None, None, None) if job is None else (job.request_id, job.attempt, job.route)


def add_request(logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor for structlog: adds `queue_request_id`, `queue_attempt` and `queue_route`; nothing outside a request.

    Keys that an entry already has stay as they are.
    """
    job = active_job()
    if job is not None:
        event_dict.setdefault("queue_request_id", job.request_id)
        event_dict.setdefault("queue_attempt", job.attempt)
        event_dict.setdefault("queue_route", job.route)
    return event_dict
