"""Reads a page of the operator's list of jobs, newest first, with bounded work however many jobs there are."""

from __future__ import annotations

from typing import Any, NamedTuple

from queue_middleware.jobs.ids import SEQUENCE_BITS
from queue_middleware.jobs.job_list import MAX_EXAMINED, MAX_PAGE, JobFilter, JobPage, ListedJob, ListPosition
from queue_middleware.jobs.models import JobState

from .job_row import job_of
from .transaction import Queries

_SLICE = 12_000
"""Jobs that one page examines in the order in which they are stored. More would delay the reads behind it by over 5 ms."""
_INDEXED_SLICE = 3_000
"""Jobs that one page examines through indexes, which takes several times as long for each."""
_LARGEST_KEY = 2**63 - 1
_WITH_ERROR = frozenset({JobState.FAILED, JobState.CANCELLED})
_WITH_STATUS = frozenset({JobState.COMPLETED})
_FAILED = frozenset({JobState.FAILED, JobState.COMPLETED})
_SERVER_ERROR = 500


class _Source(NamedTuple):
    """A set of jobs that can be read in the order of their keys without reading others."""

    keys: str
    """The query of selected keys, newest first."""
    slice: str
    """The query of the end and the size of the slice that one page examines."""
    parameters: dict[str, Any]


class _Found(NamedTuple):
    """What one page has read from one source."""

    keys: list[int]
    end: int
    """The last key examined; -1 if the source is exhausted."""
    examined: int


def page(queries: Queries, wanted: JobFilter, after: ListPosition | None, limit: int) -> JobPage:
    """A page of the jobs that `wanted` selects, from one snapshot."""
    limit = max(1, min(limit, MAX_PAGE))
    examined = 0 if after is None else after.examined
    with queries.snapshot():
        sources = _sources(queries, wanted)
        size = _SLICE if sources and sources[0].keys == "list_any" else max(1, _INDEXED_SLICE // max(1, len(sources)))
        conditions = _conditions(wanted, after) | {"limit": limit + 1, "slice": min(size, max(1, MAX_EXAMINED - examined))}
        found = [_read(queries, source, conditions) for source in sources]
        end = max((one.end for one in found), default=-1)
        keys = sorted((key for one in found for key in one.keys if key >= end), reverse=True)
        if len(keys) > limit:
            end = keys[limit - 1]
        if end >= 0:
            examined += sum(_examined(queries, *each, conditions, end) for each in zip(sources, found, strict=True))
        rows = queries.all("listed_jobs", (keys[:limit],))
    jobs = [ListedJob(job_of(*columns), method, template) for *columns, method, template in rows]
    return JobPage(jobs, None if end < 0 or examined >= MAX_EXAMINED else ListPosition(end, examined))


def routes(queries: Queries) -> list[str]:
    """The templates of all stored routes."""
    return [template for (template,) in queries.all("route_templates")]


def _conditions(wanted: JobFilter, after: ListPosition | None) -> dict[str, Any]:
    before = _LARGEST_KEY if wanted.until is None else _first_key(wanted.until)
    return {
        "before": before if after is None else min(before, after.key),
        "least": 0 if wanted.since is None else _first_key(wanted.since),
        "route": wanted.route,
        "client": wanted.client,
        "error_type": wanted.error_type,
        "statuses": sorted(wanted.statuses) or None,
    }


def _first_key(milliseconds: int) -> int:
    """The first key of a time, within the integers of a database."""
    return max(0, min(milliseconds << SEQUENCE_BITS, _LARGEST_KEY))


def _sources(queries: Queries, wanted: JobFilter) -> list[_Source]:
    """The sources that together hold every job that may be selected."""
    states = wanted.states or frozenset(JobState)
    if wanted.error_type is not None:
        states = states & _WITH_ERROR
    if wanted.statuses:
        states = states & _WITH_STATUS
    if wanted.failed_only:
        states = states & _FAILED
    if JobState.COMPLETED in states and (wanted.failed_only or min(wanted.statuses, default=0) >= _SERVER_ERROR):
        return [_Source("list_server_errors", "slice_server_errors", {}), *_sources_of(queries, states - _WITH_STATUS)]
    if JobState.COMPLETED in states:  # most jobs are, so nothing is gained by reading the other states apart
        return [_Source("list_any", "slice_any", {"states": sorted(states) if wanted.states else None})]
    return _sources_of(queries, states)


def _sources_of(queries: Queries, states: frozenset[JobState]) -> list[_Source]:
    """One source or more for each state but `completed`."""
    sources: list[_Source] = []
    for state in states:
        if state is JobState.QUEUED:
            priorities = [row[0] for row in queries.all("queued_priorities")]
            sources += [_Source("list_queued", "slice_queued", {"priority": priority}) for priority in priorities]
        elif state is JobState.RUNNING:
            sources.append(_Source("list_running", "slice_running", {}))
        else:
            sources.append(_Source("list_by_state", "slice_by_state", {"state": state}))
    return sources


def _read(queries: Queries, source: _Source, conditions: dict[str, Any]) -> _Found:
    parameters = conditions | source.parameters
    if not _is_selective(parameters):
        keys = [key for (key,) in queries.all(source.keys, parameters)]
        return _Found(keys, -1, len(keys))
    end, count = _slice(queries, source, parameters)
    if count < parameters["slice"]:
        end = -1
    parameters["least"] = max(end, parameters["least"])
    return _Found([key for (key,) in queries.all(source.keys, parameters)], end, count)


def _slice(queries: Queries, source: _Source, parameters: dict[str, Any]) -> tuple[int, int]:
    """The last key and the number of jobs of the slice that a page examines."""
    row = queries.one(source.slice, parameters)
    return (-1, 0) if row is None or row[0] is None else (row[0], row[1])


def _examined(queries: Queries, source: _Source, found: _Found, conditions: dict[str, Any], end: int) -> int:
    """How many jobs of the source the page has examined for good: those below `end` are examined again by the next page."""
    parameters = conditions | source.parameters
    if not _is_selective(parameters):
        return sum(key >= end for key in found.keys)
    if found.end == end:
        return found.examined
    parameters["least"] = max(end, parameters["least"])
    return _slice(queries, source, parameters)[1]


def _is_selective(parameters: dict[str, Any]) -> bool:
    """Whether a source may hold jobs that are not selected, so that a page could examine many and find few."""
    return any(parameters.get(name) is not None for name in ("route", "client", "error_type", "statuses", "states"))
