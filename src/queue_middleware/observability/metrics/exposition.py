"""Writes the numbers in the formats of Prometheus. The only module that imports `prometheus_client` (extra `metrics`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from queue_middleware.errors import QueueError

from .catalog import CATALOG, FIRST_VALUES, Kind, Metric
from .numbers import Row, labels_of_text
from .store import StoredNumbers
from .text_format import Values, write

_OWN_FORMATS = re.compile(
    r"(text/plain; version=(0\.0\.4|1\.0\.0)|application/openmetrics-text; version=1\.0\.0); charset=utf-8"
    r"(; escaping=(underscores|allow-utf-8))?"
)
"""Content types for which `text_format` writes what `prometheus_client` would. Other ones are rarely asked for."""
_FAMILIES: dict[Kind, Callable[..., Family]] = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
    Kind.HISTOGRAM: HistogramMetricFamily,
}


class QueueCollector(Collector):
    """A collector for a registry of the application. `read` returns the present numbers, and blocks.

    While they cannot be read, for instance because the queue does not run, there are no metrics of the queue, and those of
    others in the registry remain.
    """

    def __init__(self, read: Callable[[], StoredNumbers]) -> None:
        self._read = read

    def describe(self) -> Iterable[Family]:
        """All metrics, without values: registering the collector reads nothing."""
        return [_family(metric) for metric in CATALOG]

    def collect(self) -> Iterable[Family]:
        """All metrics with their values."""
        try:
            return families(self._read())
        except QueueError:
            return ()


class _Collected:
    """In place of a registry."""

    def __init__(self, found: Iterable[Family]) -> None:
        self._found = found

    def collect(self) -> Iterable[Family]:
        return self._found


def expose(numbers: StoredNumbers, accept: str) -> tuple[bytes, str]:
    """The text of all metrics, and its content type, in the format that the header `Accept` prefers."""
    encode, content_type = choose_encoder(accept)
    if _OWN_FORMATS.fullmatch(content_type):
        openmetrics = content_type.startswith("application/openmetrics-text")
        return write(_by_metric(numbers), numbers.created_at / 1000, openmetrics=openmetrics), content_type
    return encode(_Collected(families(numbers))), content_type


def families(numbers: StoredNumbers) -> Iterator[Family]:
    """All metrics, in the order of the catalog."""
    for metric, values in _by_metric(numbers):
        yield _filled(metric, values, numbers.created_at / 1000)


def _by_metric(numbers: StoredNumbers) -> Iterator[tuple[Metric, Values]]:
    """The values of all metrics. A metric without labels has the value 0 before it is first counted."""
    by_name: dict[str, list[Row]] = {}
    for row in numbers.rows:
        by_name.setdefault(row[0], []).append(row)
    for metric in CATALOG:
        first = FIRST_VALUES.get(metric.name, () if metric.labels or metric.kind is Kind.GAUGE else ("",))
        values: Values = {label: {0: 0.0} for label in first}
        for _, labels, bucket, value in by_name.get(metric.name, ()):
            values.setdefault(labels, {})[bucket] = value
        yield metric, values


def _family(metric: Metric) -> Family:
    family: Family = _FAMILIES[metric.kind](metric.full_name, metric.help, labels=metric.labels)
    return family


def _filled(metric: Metric, values: Values, created_at: float) -> Family:
    family = _family(metric)
    for labels, buckets in sorted(values.items()):
        names = labels_of_text(labels)
        if isinstance(family, HistogramMetricFamily):
            family.add_metric(names, _cumulative(metric, buckets), buckets.get(0, 0.0))
        elif isinstance(family, CounterMetricFamily):
            family.add_metric(names, buckets[0], created=created_at)
        elif isinstance(family, GaugeMetricFamily):
            family.add_metric(names, buckets[0])
    return family


def _cumulative(metric: Metric, buckets: dict[int, float]) -> list[tuple[str, float]]:
    """Each upper bound, and how many observations are not above it."""
    total = 0.0
    found: list[tuple[str, float]] = []
    for number, bound in enumerate((*map(float, metric.buckets), "+Inf"), 1):
        total += buckets.get(number, 0.0)
        found.append((str(bound), total))
    return found
