"""Writes metrics as text for Prometheus: the same bytes as `prometheus_client`, in a tenth of its time.

With twenty routes, `/metrics` has some three thousand lines, for which `prometheus_client` takes longer than the database takes
to read them. Both formats are specified: the text format at https://prometheus.io/docs/instrumenting/exposition_formats/, and
OpenMetrics at https://prometheus.io/docs/specs/om/open_metrics_spec/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .catalog import Kind, Metric
from .numbers import labels_of_text

Values = dict[str, dict[int, float]]
"""The values of one metric: by its joined label values, then by bucket."""
_Labels = tuple[str, str]
"""The labels of a series as text, those before and those after `le` in alphabetical order."""


def write(metrics: Iterable[tuple[Metric, Values]], created_at: float, *, openmetrics: bool) -> bytes:
    """The text of all metrics in one of the two formats. `created_at`: when the counters began, in Unix seconds."""
    created = _number(created_at)
    lines: list[str] = []
    for metric, values in metrics:
        name = metric.full_name
        base = name.removesuffix("_total")
        lines += _head(base if openmetrics else name, metric.kind, metric.help, openmetrics=openmetrics)
        series = [(_labels(metric, labels), buckets) for labels, buckets in sorted(values.items())]
        if metric.kind is Kind.HISTOGRAM:
            lines += _histograms(metric, series)
        elif metric.kind is Kind.GAUGE or not series:
            lines += [f"{name}{_all(labels)} {_number(buckets[0])}\n" for labels, buckets in series]
        else:
            lines += _counters(base, metric.help, series, created, openmetrics=openmetrics)
    if openmetrics:
        lines.append("# EOF\n")
    return "".join(lines).encode()


def _head(name: str, kind: str, text: str, *, openmetrics: bool) -> tuple[str, str]:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {text.replace(chr(34), chr(92) + chr(34)) if openmetrics else text}\n", f"# TYPE {name} {kind}\n"


def _counters(
    base: str, text: str, series: list[tuple[_Labels, dict[int, float]]], created: str, *, openmetrics: bool
) -> Iterator[str]:
    """With the time since which they count: beside each value in OpenMetrics, otherwise as a metric of its own."""
    for labels, buckets in series:
        yield f"{base}_total{_all(labels)} {_number(buckets[0])}\n"
        if openmetrics:
            yield f"{base}_created{_all(labels)} {created}\n"
    if not openmetrics:
        yield from _head(f"{base}_created", Kind.GAUGE, text, openmetrics=False)
        for labels, _ in series:
            yield f"{base}_created{_all(labels)} {created}\n"


def _histograms(metric: Metric, series: list[tuple[_Labels, dict[int, float]]]) -> Iterator[str]:
    name = metric.full_name
    bounds = [(number, f'le="{bound}"') for number, bound in enumerate((*map(float, metric.buckets), "+Inf"), 1)]
    for labels, buckets in series:
        before, after = labels
        head, tail = f"{name}_bucket{{{before}{',' if before else ''}", f"{',' if after else ''}{after}}} "
        total, shown = 0.0, "0.0"
        for number, bound in bounds:
            if number in buckets:
                total += buckets[number]
                shown = _number(total)
            yield f"{head}{bound}{tail}{shown}\n"
        yield f"{name}_count{_all(labels)} {shown}\n"
        yield f"{name}_sum{_all(labels)} {_number(buckets.get(0, 0.0))}\n"


def _labels(metric: Metric, joined: str) -> _Labels:
    given = sorted(zip(metric.labels, labels_of_text(joined), strict=False))
    texts = [(label, f'{label}="{_escaped(value)}"') for label, value in given]
    return ",".join(text for label, text in texts if label < "le"), ",".join(text for label, text in texts if label > "le")


def _all(labels: _Labels) -> str:
    joined = ",".join(filter(None, labels))
    return f"{{{joined}}}" if joined else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    """As Go writes it, which uses exponents for smaller numbers than Python."""
    text = repr(float(value))
    if value < 1_000_000 or "e" in text:
        return text
    whole, _, fraction = text.partition(".")
    mantissa = f"{whole[0]}.{whole[1:]}{fraction}".rstrip("0.")
    return f"{mantissa}e+{len(whole) - 1:02d}"
