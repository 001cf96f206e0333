"""A real SDK of OpenTelemetry that keeps spans and metrics in memory, in place of the provider of the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.metrics import _internal as metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from queue_middleware.observability.otel import names
from tests.support.queue_client import eventually


class Spans:
    """The spans that have ended."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @contextmanager
    def as_provider(self) -> Iterator[Spans]:
        """Make it the provider of the process. The API allows to set one only once in the life of a process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trace, "_TRACER_PROVIDER", self.provider)
            yield self
        self.provider.shutdown()

    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    async def ended(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """Wait until this many spans with the name have ended."""
        spans: list[ReadableSpan] = await eventually(lambda: len(found := self.named(name)) >= count and found)
        return spans


class Metrics:
    """The metrics of a meter provider."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    @contextmanager
    def as_provider(self) -> Iterator[Metrics]:
        """Make it the provider of the process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metrics, "_METER_PROVIDER", self.provider)
            yield self
        self.provider.shutdown()

    def points(self, name: str) -> list[Any]:
        """The data points of a metric at the moment."""
        data = self._reader.get_metrics_data()
        found = data.resource_metrics if data is not None else []
        scopes = [scope for resource in found for scope in resource.scope_metrics]
        return [
            point for scope in scopes for metric in scope.metrics if metric.name == name for point in metric.data.data_points
        ]


def documented_names() -> set[str]:
    """All names and values of `names`, those of gauges included."""
    texts = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    return texts | {name for name, _ in names.GAUGES.values()} | set(names.LABELS.values())


def id_of(span: ReadableSpan) -> tuple[int, int]:
    """Trace id and span id."""
    return span.context.trace_id, span.context.span_id


def parent_of(span: ReadableSpan) -> tuple[int, int] | None:
    """Trace id and span id of the parent."""
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def links_of(span: ReadableSpan) -> list[tuple[int, int]]:
    """Trace id and span id of each link."""
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def traceparent_of(span: ReadableSpan) -> str:
    """The header that names the span."""
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


def text_of(span: ReadableSpan) -> str:
    """All that is exported of a span."""
    return str(span.to_json())
