"""The table of metrics: names as Prometheus recommends them, and labels that no submitter can choose."""

from __future__ import annotations

import re

import pytest

from queue_middleware.observability.metrics.catalog import CATALOG, Kind, Metric

CHOSEN_BY_SUBMITTERS = {"host", "client", "request_id", "path", "url", "method", "status", "submitter", "identity", "key"}
BASE_UNITS = ("_seconds", "_bytes", "_operations")


def test_names_are_unique():
    assert len({metric.name for metric in CATALOG}) == len(CATALOG)


@pytest.mark.parametrize("metric", CATALOG, ids=lambda metric: metric.name)
def test_metric_follows_the_conventions(metric: Metric):
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.name.endswith(BASE_UNITS) or metric.kind is not Kind.HISTOGRAM
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.help.endswith(".")
    assert len(metric.labels) == len(set(metric.labels)) <= 2


def test_no_label_has_a_value_that_a_submitter_chooses():
    assert not {label for metric in CATALOG for label in metric.labels} & CHOSEN_BY_SUBMITTERS
