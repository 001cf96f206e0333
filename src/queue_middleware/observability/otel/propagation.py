"""W3C Trace Context in headers: reading and replacing `traceparent` and `tracestate`. `baggage` is never changed."""

from __future__ import annotations

import re

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from queue_middleware.jobs.models import Headers

_TRACEPARENT, _TRACESTATE = b"traceparent", b"tracestate"
_HEADERS = frozenset({_TRACEPARENT, _TRACESTATE})
_USUAL = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
"""A `traceparent` as this module writes it. The propagator of the API reads every form, and takes ten times as long."""
_propagator = TraceContextTextMapPropagator()
_NO_STATE = TraceState()
"""Immutable, so all span contexts share one."""


def read_headers(headers: Headers) -> SpanContext | None:
    """The span that the headers name; None if they name none."""
    found = [pair for pair in headers if pair[0] in _HEADERS]
    if not found:
        return None
    if len(found) == 1 and found[0][0] == _TRACEPARENT:
        return read_trace(found[0][1].decode("latin-1"))
    return _read({name.decode("ascii"): value.decode("latin-1") for name, value in found})


def read_trace(trace: str | None) -> SpanContext | None:
    """The span of a `traceparent`; None if there is none, or if it is not valid."""
    if trace is None:
        return None
    if usual := _USUAL.fullmatch(trace):
        flags = TraceFlags(int(usual[3], 16))
        span = SpanContext(int(usual[1], 16), int(usual[2], 16), True, flags, _NO_STATE)
        return span if span.is_valid else None
    return _read({"traceparent": trace})


def _read(carrier: dict[str, str]) -> SpanContext | None:
    found = get_current_span(_propagator.extract(carrier, Context())).get_span_context()
    return found if found.is_valid else None


def trace_text(span: SpanContext) -> str:
    """The `traceparent` of a span."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def with_trace(headers: Headers, span: SpanContext, text: str) -> Headers:
    """The headers with the span in place of the one that they name. `text` is its `traceparent`."""
    own: Headers = ((_TRACEPARENT, text.encode("ascii")),)
    if span.trace_state:
        own = (*own, (_TRACESTATE, span.trace_state.to_header().encode("latin-1")))
    return without_trace(headers) + own


def without_trace(headers: Headers) -> Headers:
    """The headers without any trace context."""
    return tuple([pair for pair in headers if pair[0] not in _HEADERS])


def child_of(span: SpanContext) -> Context:
    """The context of spans whose parent is this span, and in which nothing else is set."""
    return set_span_in_context(NonRecordingSpan(span), Context())
