"""OpenTelemetry: spans, and metrics of messaging. Only the API is imported, and only if the process has set a provider.

May import: what `observability` may, and `opentelemetry` (extra `otel`) in all modules but this one.
Begin with `instrumentations_of` and `gauges_of`, then `spans`; the names of spans, attributes and metrics are in `names`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from queue_middleware.instrumentation import Instrumentation
from queue_middleware.observability.metrics.store import MetricsStore
from queue_middleware.settings import Settings


def instrumentations_of(settings: Settings, version: str) -> Iterator[Instrumentation]:
    """What OpenTelemetry needs in this process at the moment; nothing where no provider is set. `version` is that of the queue.

    A process that has set a provider has imported the API already, so that this imports nothing for any other.
    """
    if _has_provider("trace", "get_tracer_provider"):
        from .spans import SpanInstrumentation

        yield SpanInstrumentation(settings, version)
    if _has_provider("metrics", "get_meter_provider"):
        from .metrics import MetricInstrumentation

        yield MetricInstrumentation(version)


def gauges_of(metrics: MetricsStore, database: str, version: str) -> AbstractContextManager[None]:
    """While this is entered, the queue has gauges in the meter provider of the process; none where no provider is set.

    `database` is the name that distinguishes the queues of a process. Call it in the event loop of the queue.
    """
    if not _has_provider("metrics", "get_meter_provider"):
        return nullcontext()
    from .gauges import QueueGauges, observed

    return observed(QueueGauges(database, metrics.gauges_now), version)


def _has_provider(signal: str, getter: str) -> bool:
    module = sys.modules.get(f"opentelemetry.{signal}")
    if module is None:
        return False
    # The providers of the API itself do nothing: they stand for one that has not been set, or that is switched off.
    return not type(getattr(module, getter)()).__module__.startswith(f"opentelemetry.{signal}")
