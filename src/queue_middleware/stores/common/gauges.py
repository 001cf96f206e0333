"""Reads what metrics show of the present state. Counts are bounded, and nothing that has ended is visited."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from queue_middleware.jobs.ids import SEQUENCE_BITS
from queue_middleware.jobs.models import JobState
from queue_middleware.jobs.pauses import ALL_ROUTES, paused_routes
from queue_middleware.jobs.routes import OTHER
from queue_middleware.observability.metrics import catalog
from queue_middleware.observability.metrics.numbers import Row, gauge
from queue_middleware.webhooks.models import ReceiverHealth

from . import pauses, processes
from .transaction import Queries

_MOST = 10_000
"""Jobs of one state whose route is read, the next ones to start first. Further ones are counted as jobs of the route `other`:
grouping 100,000 jobs by route takes 50 ms, which is too much for each scrape."""
_MOST_WEBHOOKS = 100_000


def read_gauges(queries: Queries, now: int, living: Collection[str]) -> list[Row]:
    """The rows of the gauges that the database knows. `now` in milliseconds since 1970; `living` are the owners that run."""
    paused = paused_routes(pauses.read(queries), now)
    return [
        *_jobs(queries, now, paused),
        *(gauge(catalog.PAUSED, 1, route) for route in paused),
        *_processes(queries, living),
        *_webhooks(queries, now),
    ]


def _processes(queries: Queries, living: Collection[str]) -> Iterator[Row]:
    found = [process for process in processes.read(queries) if process.owner in living]
    yield gauge(catalog.PROCESSES, len(found))
    yield gauge(catalog.SLOTS, sum(process.concurrency for process in found))
    yield gauge(catalog.SLOTS_BUSY, sum(process.running for process in found))
    yield gauge(catalog.SLOTS_STUCK, sum(process.stuck for process in found))
    yield gauge(catalog.STREAMS, sum(process.streams for process in found))


def _jobs(queries: Queries, now: int, paused: frozenset[str]) -> Iterator[Row]:
    templates = dict(queries.all("routes_by_id"))
    totals = dict(queries.all("backlog_totals"))
    counts: dict[tuple[str, str], int] = {}
    oldest: dict[str, int] = {}
    for state, route, jobs, first in queries.all("unended_jobs", {"most": _MOST}):
        template = templates.get(route, OTHER)
        counts[state, template] = counts.get((state, template), 0) + jobs
        totals[state] = totals.get(state, 0) - jobs
        if state == JobState.QUEUED and paused.isdisjoint((template, ALL_ROUTES)):
            oldest[template] = min(first, oldest.get(template, first))
    for state in (JobState.QUEUED, JobState.DELAYED):
        if totals.get(state, 0) > 0:
            counts[state, OTHER] = counts.get((state, OTHER), 0) + totals[state]
    for (state, template), count in counts.items():
        yield gauge(catalog.REQUESTS, count, state, template)
    for template in {template for _, template in counts}:
        first = oldest.get(template)
        age = 0.0 if first is None else max(0.0, (now - (first >> SEQUENCE_BITS)) / 1000)
        yield gauge(catalog.OLDEST, age, template)


def _webhooks(queries: Queries, now: int) -> Iterator[Row]:
    for state, count in queries.all("undelivered", {"most": _MOST_WEBHOOKS}):
        yield gauge(catalog.WEBHOOKS, count, state)
    due = queries.one("next_delivery", {"after": -1})
    yield gauge(catalog.WEBHOOK_OLDEST, 0.0 if due is None or due[0] is None else max(0.0, (now - due[0]) / 1000))
    receivers = dict(queries.all("count_receivers"))
    for health in ReceiverHealth:
        yield gauge(catalog.RECEIVERS, receivers.get(health, 0), health)
