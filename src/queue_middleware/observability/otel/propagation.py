"""W3C Trace Context in headers: reading and replacing `traceparent` and `tracestate`. `baggage` is never changed."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from queue_middleware.jobs.models import Headers

_TRACEPARENT, _TRACESTATE = b"traceparent", b"tracestate"
_HEADERS = frozenset({_TRACEPARENT, _TRACESTATE})
_propagator = TraceContextTextMapPropagator()


def read_headers(headers: Headers) -> SpanContext | None:
    """The span that the headers name; None if they name none."""
    carrier = {name.decode("ascii"): value.decode("latin-1") for name, value in headers if name in _HEADERS}
    return _read(carrier) if carrier else None


def read_trace(trace: str | None) -> SpanContext | None:
    """The span of a `traceparent`, as `trace_text` has written it."""
    return None if trace is None else _read({"traceparent": trace})


def _read(carrier: dict[str, str]) -> SpanContext | None:
    found = get_current_span(_propagator.extract(carrier, Context())).get_span_context()
    return found if found.is_valid else None


def trace_text(span: SpanContext) -> str:
    """The `traceparent` of a span."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def with_trace(headers: Headers, span: SpanContext) -> Headers:
    """The headers with the span in place of the one that they name."""
    state = span.trace_state.to_header() if span.trace_state else ""
    own = ((_TRACEPARENT, trace_text(span).encode("ascii")), *(((_TRACESTATE, state.encode("latin-1")),) if state else ()))
    return (*without_trace(headers), *own)


def without_trace(headers: Headers) -> Headers:
    """The headers without any trace context."""
    return tuple(pair for pair in headers if pair[0] not in _HEADERS)


def child_of(span: SpanContext) -> Context:
    """The context of spans whose parent is this span, and in which nothing else is set."""
    return set_span_in_context(NonRecordingSpan(span), Context())
