"""The text of all metrics: byte for byte what `prometheus_client` writes, in every format that it offers."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from queue_middleware.observability.metrics import catalog, exposition
from queue_middleware.observability.metrics.catalog import CATALOG, Kind, Metric
from queue_middleware.observability.metrics.numbers import Row, counted, observed
from queue_middleware.observability.metrics.store import StoredNumbers

ACCEPTED = {
    "no preference": "",
    "text": "text/plain;version=0.0.4",
    "newer text": "text/plain;version=1.0.0;escaping=allow-utf-8",
    "OpenMetrics": "application/openmetrics-text;version=1.0.0",
    "Prometheus 3": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.4",
    "escaped names": "application/openmetrics-text;version=1.0.0;escaping=underscores",
}
VALUES = ("/items/{id}", 'a "quoted" \\ back\\nslash', "ü", "", "/zebra")
AMOUNTS = (0, 1, 999_999, 1_000_000, 1_234_567.25, 20_000_000_000, 1e15, 1e17, 1.5e22, 0.1, 1e-7, 3.5)


def rows_of(metric: Metric) -> list[Row]:
    """Rows with several values of each label, and with numbers of all sizes."""
    rows: list[Row] = []
    for place, (value, amount) in enumerate(zip(VALUES * 3, AMOUNTS, strict=False)):
        labels = tuple(f"{value}{label}{place}" for label in metric.labels)
        if metric.kind is Kind.HISTOGRAM:
            rows += observed(metric, [amount, *metric.buckets[place:], *metric.buckets[:place]], *labels)
        else:
            rows.append(counted(metric, *labels, value=amount))
    return rows


EVERYTHING = StoredNumbers([row for metric in CATALOG for row in rows_of(metric)], 1_764_357_600_123)
NOTHING = StoredNumbers([], 0)


def by_prometheus_client(numbers: StoredNumbers, accept: str) -> tuple[bytes, str]:
    encode, content_type = choose_encoder(accept)
    collected: Any = exposition._Collected(exposition.families(numbers))
    return encode(collected), content_type


@pytest.mark.parametrize("accept", ACCEPTED.values(), ids=ACCEPTED)
@pytest.mark.parametrize("numbers", [EVERYTHING, NOTHING], ids=["everything", "nothing"])
def test_the_text_is_that_of_prometheus_client(numbers: StoredNumbers, accept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, content_type = by_prometheus_client(numbers, accept)
    monkeypatch.setattr(exposition, "families", None)  # what it is written from
    assert exposition.expose(numbers, accept) == (expected, content_type)


@pytest.mark.parametrize("escaping", ["dots", "values"])
def test_prometheus_client_writes_rare_formats_itself(escaping: str) -> None:
    accept = f"application/openmetrics-text;version=1.0.0;escaping={escaping}"
    assert exposition.expose(EVERYTHING, accept) == by_prometheus_client(EVERYTHING, accept)


def test_both_formats_can_be_parsed() -> None:
    text, openmetrics = (exposition.expose(EVERYTHING, ACCEPTED[name])[0].decode() for name in ("text", "OpenMetrics"))
    for families in (list(parse_text(text)), list(parse_openmetrics(openmetrics))):
        values = {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}
        name = f"{catalog.SUBMITTED.full_name}"
        assert values[name, f"{VALUES[1]}route1"] == AMOUNTS[1]
