"""Numbers that a process has added up, in the form in which they are stored."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import repeat

from queue_middleware.jobs.routes import OTHER
from queue_middleware.jobs.struct import Struct

from . import catalog
from .catalog import Metric

Row = tuple[str, str, int, float]
"""Name, label values, bucket and value, like the columns of the table `metric`.

Bucket 0 is the value of a counter or the sum of a histogram. Bucket 1 is the number of observations up to the first bound of
a histogram, and so on; each observation is in one bucket, the last of which has no bound.
"""

_SEPARATOR = "\n"


class Unrouted(Struct, frozen=True):
    """What happened to a request whose route is found when it is stored."""

    request_id: str
    rows: tuple[Row, ...]
    """Their label values begin with an empty one in place of the route."""


class Numbers(Struct, frozen=True):
    """What is to be added to the stored numbers."""

    rows: list[Row]
    unrouted: tuple[Unrouted, ...] = ()
    tallied: frozenset[str] = frozenset()
    """The routes that are kept by minute. Others are kept together, as `other`."""

    def __bool__(self) -> bool:
        return bool(self.rows or self.unrouted)


def counted(metric: Metric, *labels: str, value: float = 1) -> Row:
    """The row that adds to a counter."""
    return metric.name, _SEPARATOR.join(labels), 0, value


def gauge(metric: Metric, value: float, *labels: str) -> Row:
    """The row of a gauge."""
    return counted(metric, *labels, value=value)


def observed(metric: Metric, values: Sequence[float], *labels: str) -> Iterable[Row]:
    """The rows that add values to a histogram: their sum, and how many are in each bucket. Without values there are none.

    A negative value, for instance because the clock was set back, counts as 0.
    """
    if values:
        joined = _SEPARATOR.join(labels)
        yield metric.name, joined, 0, sum(values) if min(values) >= 0 else sum(max(0.0, value) for value in values)
        for bucket, count in Counter(map(bisect_left, repeat(metric.buckets), values)).items():
            yield metric.name, joined, bucket + 1, count


def labels_of(row: Row) -> list[str]:
    """The label values of a row."""
    return labels_of_text(row[1])


def labels_of_text(joined: str) -> list[str]:
    """The label values of a row whose second column is this."""
    return joined.split(_SEPARATOR) if joined else []


def with_route(row: Row, route: str) -> Row:
    """A row of `Unrouted`, with its route."""
    return row[0], route + row[1], row[2], row[3]


def tallies(rows: Iterable[Row], tallied: frozenset[str]) -> list[Row]:
    """The rows to add to the numbers of the minute; in place of label values they have the route."""
    sums: dict[tuple[str, str, int], float] = {}
    for row in rows:
        if row[0] in catalog.TALLIED:
            route, *rest = labels_of(row)
            route = route if route in tallied else OTHER
            for name in (row[0], *_divided(row[0], rest)):
                key = name, route, row[2]
                sums[key] = sums.get(key, 0) + row[3]
    return [(*key, value) for key, value in sums.items()]


def _divided(name: str, rest: list[str]) -> tuple[str, ...]:
    if name != catalog.FINISHED.name:
        return ()
    if rest[0] in catalog.FAILED_OUTCOMES:
        return (catalog.REQUESTS_FAILED,)
    return (catalog.REQUESTS_CANCELLED,) if rest[0] == "cancelled" else ()
