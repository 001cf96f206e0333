"""Observable gauges of the present state of a queue. Nothing is read until a reader of the meter provider asks for them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter, get_meter_provider
from opentelemetry.util.types import AttributeValue

from queue_middleware.background import run_in_thread
from queue_middleware.errors import QueueError
from queue_middleware.observability.metrics.catalog import Metric
from queue_middleware.observability.metrics.numbers import Row, labels_of

from . import names

READ_EVERY = 1.0
"""Seconds, at least: a reader asks for each gauge by itself, and a process may have several readers."""
_LONGEST_USE = 300.0
"""Seconds for which a reader in the event loop's thread receives what was read before."""

_Observations = dict[str, list[Observation]]
"""By the name of the metric in the catalog."""


class QueueGauges:
    """The gauges of one queue while it runs. `read` returns their rows, or None if another process reports them; it blocks."""

    def __init__(
        self, name: str, read: Callable[[], list[Row] | None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._read = read
        self._monotonic = monotonic
        self._loop = asyncio.get_running_loop()
        self._thread, self._process = threading.get_ident(), os.getpid()
        self._lock = threading.Lock()
        self._found: _Observations = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    def observe(self, metric: Metric) -> Iterable[Observation]:
        """The present values of a metric. In the event loop's thread, which must not block, those that were read before."""
        if os.getpid() != self._process:  # in a forked child, which has no connection, and perhaps a lock that stays locked
            return ()
        if threading.get_ident() != self._thread:
            self._refresh()
        elif self._is_older_than(READ_EVERY) and (self._reading is None or self._reading.done()):
            self._reading = self._loop.create_task(run_in_thread(self._refresh))
        return () if self._is_older_than(_LONGEST_USE) else self._found.get(metric.name, ())

    def close(self) -> None:
        """End a read in the background."""
        if self._reading is not None:
            self._reading.cancel()

    def _is_older_than(self, seconds: float) -> bool:
        return self._monotonic() - self._read_at >= seconds

    def _refresh(self) -> None:
        with self._lock:
            if self._is_older_than(READ_EVERY):
                try:
                    rows = self._read() or []
                except QueueError:  # the next gauge does not try again at once
                    rows = []
                self._found = self._observations(rows)
                self._read_at = self._monotonic()

    def _observations(self, rows: Iterable[Row]) -> _Observations:
        found: _Observations = {}
        for row in rows:
            if (labels := _LABELS.get(row[0])) is not None:
                attributes: dict[str, AttributeValue] = {names.DATABASE: self._name}
                attributes.update(zip(labels, labels_of(row), strict=True))
                found.setdefault(row[0], []).append(Observation(row[3], attributes))
        return found


_LABELS = {metric.name: tuple(names.LABELS[label] for label in metric.labels) for metric in names.GAUGES}
"""The attributes of each metric."""


class _Gauges:
    """The gauges of a meter provider, for all queues that run in this process."""

    def __init__(self, version: str) -> None:
        self.queues: tuple[QueueGauges, ...] = ()
        meter = get_meter(names.SCOPE, version, schema_url=names.SCHEMA_URL)
        for metric, (name, unit) in names.GAUGES.items():
            meter.create_observable_gauge(name, [partial(self._observe, metric)], unit, metric.help)

    def _observe(self, metric: Metric, _: CallbackOptions) -> Iterator[Observation]:
        for queue in self.queues:
            yield from queue.observe(metric)


_gauges: WeakKeyDictionary[MeterProvider, _Gauges] = WeakKeyDictionary()
"""By provider, for the life of the process: the API can neither remove a gauge when a queue stops nor create it again."""
_changing = threading.Lock()
"""Held while a queue is added or removed; queues may run in several threads."""


@contextmanager
def observed(queue: QueueGauges, version: str) -> Iterator[None]:
    """While this is entered, the meter provider of the process has the gauges of the queue."""
    provider = get_meter_provider()
    with _changing:
        gauges = _gauges.get(provider)
        if gauges is None:
            gauges = _gauges[provider] = _Gauges(version)
        gauges.queues += (queue,)
    try:
        yield
    finally:
        with _changing:
            gauges.queues = tuple(other for other in gauges.queues if other is not queue)
        queue.close()
