"""The values of a list of jobs for the operator: what to select, one row, one page."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from queue_middleware.errors import BadRequest
from queue_middleware.syntax.times import milliseconds_of

from .models import ErrorType, Job, JobState
from .struct import Struct

MAX_EXAMINED = 100_000
"""Jobs that all pages of one list examine together, from the newest on."""
MAX_PAGE = 500
"""Jobs of one page."""


class JobFilter(Struct, frozen=True):
    """Which jobs to list. All conditions have to hold; a condition that is not set always holds."""

    states: frozenset[JobState] = frozenset()
    """Empty: any state."""
    route: str | None = None
    """As `routes.RouteTemplates` names it."""
    client: str | None = None
    """The client that submitted the jobs, as in `NewJob.client`."""
    error_type: ErrorType | None = None
    since: int | None = None
    """Submitted at this time or later; milliseconds since 1970."""
    until: int | None = None
    """Submitted before this time."""
    failed_only: bool = False
    """Only jobs that ended without a response and were not cancelled, or with a status from 500."""
    statuses: frozenset[int] = frozenset()
    """The HTTP statuses of responses; empty: any response, or none."""


def select(
    *,
    states: Iterable[str] = (),
    route: str | None = None,
    client: str | None = None,
    error_type: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    failed_only: bool = False,
    statuses: Iterable[int] = (),
) -> JobFilter:
    """A filter whose conditions are checked. `since` and `until` need a time zone. Raises `BadRequest`."""
    try:
        found = frozenset(map(JobState, states))
        error = None if error_type is None else ErrorType(error_type)
    except ValueError as wrong:
        raise BadRequest(f"{wrong}; the states are {', '.join(JobState)}, the errors {', '.join(ErrorType)}") from None
    return JobFilter(
        found,
        route,
        client,
        error,
        None if since is None else milliseconds_of("since", since),
        None if until is None else milliseconds_of("until", until),
        failed_only,
        frozenset(statuses),
    )


class ListPosition(Struct, frozen=True):
    """Where a page ended."""

    key: int
    """All jobs with this key or a larger one were examined."""
    examined: int
    """How many jobs the pages until here have examined; a list ends after `MAX_EXAMINED`."""


class ListedJob(Struct, frozen=True):
    """One row of a list."""

    job: Job
    """Without its position in the queue."""
    method: str
    """The HTTP method of the call; empty if the route is `routes.OTHER`."""
    route: str


class JobPage(Struct, frozen=True):
    """Jobs, newest first. A page may have fewer than were requested, even none, although the list goes on."""

    jobs: list[ListedJob]
    next: ListPosition | None
    """Pass it as `after` to continue; None at the end of the list."""
