"""When the gauges of a queue are read, and what readers receive without a read."""

from __future__ import annotations

import asyncio
import os

import pytest

from queue_middleware.errors import StoreBusy
from queue_middleware.observability.metrics import catalog
from queue_middleware.observability.metrics.catalog import CATALOG, Kind, Metric
from queue_middleware.observability.metrics.numbers import Row
from queue_middleware.observability.metrics.numbers import gauge as row
from queue_middleware.observability.otel import names
from queue_middleware.observability.otel.gauges import QueueGauges


class Source:
    """Counts how often it is read."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reads = 0
        self.busy = False
        self.gauges = QueueGauges("queue", self._read, lambda: self.now)

    def _read(self) -> list[Row]:
        self.reads += 1
        if self.busy:
            raise StoreBusy("busy", 5)
        return [row(catalog.SLOTS, self.reads), row(catalog.PAUSED, 1, "/a"), row(catalog.BUILD, 1, "1.0", "sqlite")]

    def values(self, metric: Metric = catalog.SLOTS) -> list[float]:
        return [observation.value for observation in self.gauges.observe(metric)]

    async def beside(self, metric: Metric = catalog.SLOTS) -> list[float]:
        """As a reader with a thread of its own receives them."""
        return await asyncio.to_thread(self.values, metric)


def test_every_gauge_of_the_catalog_has_a_name_of_its_own() -> None:
    found = {metric for metric in CATALOG if metric.kind is Kind.GAUGE and metric is not catalog.BUILD}
    assert found == set(names.GAUGES)
    assert len({name for name, _ in names.GAUGES.values()}) == len(found)
    assert {label for metric in found for label in metric.labels} == set(names.LABELS)


async def test_one_read_serves_all_gauges_for_a_second() -> None:
    source = Source()
    assert source.reads == 0
    assert (await source.beside(), await source.beside(catalog.PAUSED)) == ([1], [1])
    source.now = 0.9
    assert await source.beside() == [1]
    source.now = 1.0
    assert await source.beside() == [2]


async def test_a_database_that_fails_is_not_read_for_each_gauge() -> None:
    source = Source()
    await source.beside()
    source.now, source.busy = 1.0, True
    assert (await source.beside(), await source.beside(catalog.PAUSED), source.reads) == ([], [], 2)


async def test_in_the_thread_of_the_event_loop_values_are_those_that_were_read_before() -> None:
    source = Source()
    assert source.values() == source.values(catalog.PAUSED) == []
    assert source.gauges._reading is not None
    await source.gauges._reading
    assert (source.values(), source.reads) == ([1], 1)
    source.now = 300.0
    assert source.values() == []
    source.gauges.close()


async def test_a_forked_child_reports_nothing_and_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    assert (await source.beside(), source.reads) == ([], 0)
