"""How much a queue does, by route: from the gauges of the metrics and from the tallies by minute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from queue_middleware.jobs.models import JobState
from queue_middleware.jobs.struct import Struct
from queue_middleware.observability.metrics import catalog
from queue_middleware.observability.metrics.catalog import Metric
from queue_middleware.observability.metrics.numbers import Row, labels_of
from queue_middleware.observability.metrics.store import MetricsStore

from .output import duration

RECENT = 300.0
"""Seconds of `Throughput.recent`. Tallies are kept by minute, so it is up to a minute longer."""
_DAY = 86_400.0
_NAMES = (*catalog.TALLIED, catalog.REQUESTS_FAILED, catalog.REQUESTS_CANCELLED)
_SHARE = 0.95


class Done(Struct, frozen=True):
    """What happened in a period."""

    submitted: int
    ended: int
    failed: int
    """Without a response, or with a status from 500."""
    cancelled: int
    wait_p95: float | None
    """Seconds from the time at which a request could start to its first start: 95 of 100 waited no longer."""
    run_p95: float | None
    """Seconds of an attempt: 95 of 100 took no longer."""


class RouteThroughput(Struct, frozen=True):
    """One route."""

    route: str
    queued: int
    running: int
    delayed: int
    awaiting: int
    oldest_seconds: float
    """Age of the oldest request that could start now; 0 without one."""
    day: Done
    """In the last 24 hours."""


class Throughput(Struct, frozen=True):
    """What the queue does."""

    recent: Done
    """In the last 5 minutes."""
    routes: list[RouteThroughput]
    """Those with the most queued requests first."""


async def read_throughput(metrics: MetricsStore, now: float) -> Throughput:
    """What the numbers of all processes show. `now` in seconds since 1970."""
    gauges = (await metrics.read()).rows
    recent = await metrics.tallies(_NAMES, round((now - RECENT) * 1000))
    day = await metrics.tallies(_NAMES, round((now - _DAY) * 1000))
    counts = {(state, route): round(value) for (state, route), value in _gauges(gauges, catalog.REQUESTS)}
    oldest = {route: value for (route,), value in _gauges(gauges, catalog.OLDEST)}
    names = {route for _, route in counts} | {row[1] for row in day}
    routes = [
        RouteThroughput(
            route=route,
            queued=counts.get((JobState.QUEUED, route), 0),
            running=counts.get((JobState.RUNNING, route), 0),
            delayed=counts.get((JobState.DELAYED, route), 0),
            awaiting=counts.get((JobState.AWAITING, route), 0),
            oldest_seconds=oldest.get(route, 0.0),
            day=_done([row for row in day if row[1] == route]),
        )
        for route in names
    ]
    routes.sort(key=lambda one: (-one.queued, -one.running, -one.day.submitted, one.route))
    return Throughput(_done(recent), routes)


def _gauges(rows: list[Row], metric: Metric) -> Iterator[tuple[list[str], float]]:
    """Label values and value of each row of a gauge."""
    return ((labels_of(row), row[3]) for row in rows if row[0] == metric.name)


def _done(rows: Sequence[Row]) -> Done:
    def total(name: str) -> int:
        return round(sum(row[3] for row in rows if row[0] == name and row[2] == 0))

    return Done(
        total(catalog.SUBMITTED.name),
        total(catalog.FINISHED.name),
        total(catalog.REQUESTS_FAILED),
        total(catalog.REQUESTS_CANCELLED),
        quantile(catalog.WAIT, rows),
        quantile(catalog.ATTEMPT_TIME, rows),
    )


def quantile(metric: Metric, rows: Iterable[Row], share: float = _SHARE) -> float | None:
    """The value below which this share of the observations of a histogram lies; None without observations.

    Within a bucket, values are taken to be spread evenly, as Prometheus does. Above the last bound it is the last bound.
    """
    counts: dict[int, float] = {}
    for name, _, bucket, value in rows:
        if name == metric.name and bucket > 0:
            counts[bucket] = counts.get(bucket, 0) + value
    rest = share * sum(counts.values())
    if not rest:
        return None
    lower = 0.0
    for bucket, upper in enumerate(metric.buckets, 1):
        here = counts.get(bucket, 0)
        if rest <= here:
            return lower + (upper - lower) * rest / here
        rest, lower = rest - here, upper
    return lower


def recent_line(done: Done) -> str:
    """One line about the last 5 minutes."""
    parts = [
        f"{done.submitted:,} submitted",
        f"{done.ended:,} ended",
        f"{done.failed:,} failed",
        f"{done.cancelled:,} cancelled",
    ]
    times = [
        f"{name} p95 {duration(value)}" for name, value in (("wait", done.wait_p95), ("run", done.run_p95)) if value is not None
    ]
    return "last 5 minutes: " + ", ".join(parts) + (f"; {', '.join(times)}" if times else "")


COLUMNS = ("ROUTE", ">QUEUED", ">RUNNING", ">DELAYED", ">AWAITING", ">OLDEST", ">FAILED 24H", ">WAIT P95", ">RUN P95")


def cells(route: RouteThroughput) -> tuple[str, ...]:
    """The cells of a route in a table with `COLUMNS`."""
    counts = [f"{count:,}" for count in (route.queued, route.running, route.delayed, route.awaiting)]
    oldest = duration(route.oldest_seconds) if route.oldest_seconds else "-"
    times = ["-" if value is None else duration(value) for value in (route.day.wait_p95, route.day.run_p95)]
    return (route.route, *counts, oldest, f"{route.day.failed:,}", *times)
