"""A span that is current while a block runs, as a context manager that costs less than that of the API."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from types import TracebackType

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

from queue_middleware.errors import QueueError

from . import names


class SpanScope:
    """Makes the span current, and ends it. Of an exception it shows the class only: its text may contain data of a client.

    `on_end` is called with the span before it ends, also after an exception. `shows_status`: a `QueueError` is the response.
    """

    __slots__ = ("_on_end", "_shows_status", "_span", "_token")
    _token: Token[Context]

    def __init__(self, span: Span, on_end: Callable[[Span], None], *, shows_status: bool = False) -> None:
        self._span = span
        self._on_end = on_end
        self._shows_status = shows_status

    def __enter__(self) -> None:
        self._token = attach(set_span_in_context(self._span))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        span = self._span
        try:
            if isinstance(error, Exception):
                fail(span, type(error).__name__)
                if self._shows_status and isinstance(error, QueueError):
                    span.set_attribute(names.HTTP_STATUS, error.status)
            self._on_end(span)
        finally:
            detach(self._token)
            span.end()


def fail(span: Span, error_type: str) -> None:
    """Mark the span as failed, without a description."""
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR))
