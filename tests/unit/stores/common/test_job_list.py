"""Pages of lists against a plain filter, for any jobs, filters and sizes, while jobs change their states between pages."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from queue_middleware.jobs.job_list import JobFilter, JobPage
from queue_middleware.jobs.models import ErrorType, JobState
from queue_middleware.stores.common import job_list
from queue_middleware.stores.sqlite.sql import SQLiteQueries
from queue_middleware.stores.sqlite.sql.schema import migrate

ROUTES = {0: "other", 1: "/work", 2: "/items/{id}", 3: "/work"}
CLIENTS = ("192.0.2.7", "id:alice")
ERRORS = {JobState.FAILED: ErrorType.REQUEST_TIMEOUT, JobState.CANCELLED: ErrorType.CLIENT_CANCELLED}

states = st.sampled_from(JobState)
jobs = st.lists(st.tuples(states, st.integers(1, 3), st.sampled_from(CLIENTS), st.sampled_from(list(ROUTES))), max_size=40)
filters = st.builds(
    JobFilter,
    states=st.frozensets(states, max_size=4),
    route=st.none() | st.sampled_from(["/work", "other", "/nowhere"]),
    client=st.none() | st.sampled_from(CLIENTS),
    error_type=st.none() | st.sampled_from(list(ERRORS.values())),
    since=st.none() | st.integers(0, 40),
    until=st.none() | st.integers(0, 42),
)
changes = st.lists(st.lists(st.tuples(st.integers(0, 39), states), max_size=3), max_size=30)


def columns(state: JobState) -> tuple[object, ...]:
    """The columns that the constraints of the table require for a state."""
    is_final = state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)
    running = state is JobState.RUNNING
    return (
        state,
        1 if state is JobState.DELAYED else None,
        "one" if running else None,
        1 if running else None,
        1 if running else None,
        1 if is_final else None,
        200 if state is JobState.COMPLETED else None,
        ERRORS.get(state),
    )


def fill(connection: sqlite3.Connection, stored: list[tuple[JobState, int, str, int]]) -> None:
    migrate(connection)
    connection.executemany(
        "INSERT INTO route (id, method, template) VALUES (?, ?, ?)",
        [(number, "POST" if number < 3 else "PUT", template) for number, template in ROUTES.items() if number],
    )
    connection.executemany(
        "INSERT INTO job (state, due_at, owner, token, lease_until, finished_at, status, error_type, id, id_random, priority,"
        " client, route, max_attempts, attempt) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, zeroblob(10), ?, ?, ?, 1, 1)",
        [
            (*columns(state), number << 15, priority, client, route)
            for number, (state, priority, client, route) in enumerate(stored, 1)
        ],
    )


def is_selected(wanted: JobFilter, number: int, job: tuple[JobState, int, str, int]) -> bool:
    state, _, client, route = job
    return (
        (not wanted.states or state in wanted.states)
        and wanted.route in (None, ROUTES[route])
        and wanted.client in (None, client)
        and wanted.error_type in (None, ERRORS.get(state))
        and (wanted.since is None or number >= wanted.since)
        and (wanted.until is None or number < wanted.until)
    )


@settings(max_examples=150, deadline=None)
@given(stored=jobs, wanted=filters, changed=changes, limit=st.integers(1, 7), size=st.integers(1, 9))
def test_no_job_is_skipped_or_repeated(
    stored: list[tuple[JobState, int, str, int]],
    wanted: JobFilter,
    changed: list[list[tuple[int, JobState]]],
    limit: int,
    size: int,
) -> None:
    always = {number for number, job in enumerate(stored, 1) if is_selected(wanted, number, job)}
    ever = set(always)
    listed: list[int] = []
    page = JobPage([], None)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with closing(connection), patch.multiple(job_list, _SLICE=size, _INDEXED_SLICE=size):
        fill(connection, stored)
        queries = SQLiteQueries(connection)
        for turn in range(200):
            page = job_list.page(queries, wanted, page.next, limit)
            assert len(page.jobs) <= limit
            listed += [one.job.key >> 15 for one in page.jobs]
            if page.next is None:
                break
            assert page.next.examined <= len(stored)
            for index, state in changed[turn] if turn < len(changed) else ():
                if index < len(stored):
                    _, *rest = stored[index]
                    stored[index] = (state, *rest)  # type: ignore[assignment]
                    connection.execute(
                        "UPDATE job SET state = ?, due_at = ?, owner = ?, token = ?, lease_until = ?, finished_at = ?,"
                        " status = ?, error_type = ? WHERE id = ?",
                        (*columns(state), index + 1 << 15),
                    )
            selected = {number for number, job in enumerate(stored, 1) if is_selected(wanted, number, job)}
            always &= selected
            ever |= selected
    assert page.next is None, "the list does not end"
    assert listed == sorted(set(listed), reverse=True)
    assert always <= set(listed) <= ever
