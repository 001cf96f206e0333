"""Adds up in memory what happens in this process, until the sums are added to those in the database."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from queue_middleware.events import (
    CircuitClosed,
    CircuitOpened,
    ClaimLost,
    Delivered,
    DeliveryDead,
    DeliveryFailed,
    Event,
    Finished,
    Operated,
    Polled,
    PollFailed,
    Rescued,
    ResultReceived,
    ServiceError,
)
from queue_middleware.jobs.ids import SEQUENCE_BITS, parse_request_id
from queue_middleware.jobs.models import AttemptEnd, Claim, ErrorType, Failure, JobState, StoredResponse
from queue_middleware.jobs.outcomes import outcome_of
from queue_middleware.jobs.states import FINAL

from . import catalog
from .catalog import AttemptResult, Metric, Refusal, WebhookResult
from .numbers import Numbers, Row, Unrouted, counted, observed

_MAX_UNROUTED = 500
"""Requests whose routes one transaction looks up."""
_MANY_TRANSACTIONS = 1000
"""Transactions whose numbers are stored although nothing else was counted, so that they do not fill the memory."""

AttemptOutcome = StoredResponse | Failure | None
"""What an attempt led to; None if it was handed back."""


class _Route:
    """The numbers of one route. Values of histograms are sorted into buckets when they are stored, many at once."""

    __slots__ = ("attempts", "ends", "responded", "sizes", "submitted", "times", "waits")

    def __init__(self) -> None:
        self.submitted = 0
        self.responded = 0
        self.attempts: Counter[AttemptResult] = Counter()
        """Attempts that ended in another way than `RESPONDED`."""
        self.waits: list[float] = []
        self.times: list[float] = []
        self.sizes: list[float] = []
        self.ends: dict[int | ErrorType, list[float]] = {}
        """The durations of requests by what they ended with: a status, or an error in place of a response."""


class Meter:
    """Counts what happens in this process. All methods are called in the event loop.

    The methods for what happens to every request are called directly, because events for each would take longer than counting
    does. Everything else arrives as events.
    """

    kinds: ClassVar[frozenset[type[Event]]] = frozenset(
        {
            CircuitClosed, CircuitOpened, ClaimLost, Delivered, DeliveryDead, DeliveryFailed, Operated, Polled, PollFailed,
            Rescued, ResultReceived, ServiceError,
        }
    )  # fmt: skip
    incidental: ClassVar[frozenset[type[Event]]] = frozenset({Finished})
    """Events that it receives if they are made, and for which they need not be made."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` returns Unix seconds."""
        self._clock = clock
        self._routes: dict[str, _Route] = {}
        self._counters: Counter[tuple[Metric, tuple[str, ...]]] = Counter()
        self._unrouted: list[Unrouted] = []
        self._returned: dict[tuple[str, str, int], float] = {}
        self._tallied: frozenset[str] = frozenset()
        self._start_over()

    def _start_over(self) -> None:
        self._routes, self._counters, self._returned = {}, Counter(), {}
        self._unrouted = self._unrouted[_MAX_UNROUTED:]
        self._values: dict[Metric, list[float]] = {
            metric: [] for metric in (catalog.WEBHOOK_TIME, catalog.WEBHOOK_LAG, catalog.COMMIT_TIME, catalog.COMMIT_SIZE)
        }
        """Of histograms without labels."""

    @property
    def has_counted(self) -> bool:
        """Whether there is something to store. A few transactions are not: storing them is a transaction, too."""
        counted = self._routes or self._counters or self._unrouted or self._returned
        return bool(counted) or len(self._values[catalog.COMMIT_TIME]) >= _MANY_TRANSACTIONS

    # --- what happens to every request

    def submitted(self, route: str) -> None:
        """A request was stored."""
        (self._routes.get(route) or self._route(route)).submitted += 1

    def started(self, claim: Claim) -> None:
        """An attempt begins."""
        if claim.attempt == 1:
            could_start = claim.key >> SEQUENCE_BITS
            if claim.task is not None and claim.task.spec.due_at is not None:
                could_start = max(could_start, claim.task.spec.due_at)
            route = self._routes.get(claim.route) or self._route(claim.route)
            route.waits.append(self._clock() - could_start / 1000)

    def attempt_ended(self, claim: Claim, outcome: AttemptOutcome, end: AttemptEnd | None, seconds: float) -> None:
        """An attempt has ended after `seconds`. `end`: what became of the job, if the store decided differently."""
        route = self._routes.get(claim.route) or self._route(claim.route)
        route.times.append(seconds)
        if end is None and type(outcome) is StoredResponse:  # as a rule
            cause: int | ErrorType | None = outcome.status
            route.responded += 1
            route.sizes.append(outcome.size if outcome.chunks else len(outcome.body))
        else:
            cause = _cause(outcome, end)
            route.attempts[_ending(outcome, end)] += 1
        if cause is not None:
            durations = route.ends.get(cause)
            if durations is None:
                durations = route.ends[cause] = []
            durations.append(self._clock() - (claim.key >> SEQUENCE_BITS) / 1000)

    def _route(self, name: str) -> _Route:
        route = self._routes.get(name)
        if route is None:
            route = self._routes[name] = _Route()
            if name not in self._tallied and len(self._tallied) < catalog.TALLIED_ROUTES:
                self._tallied |= {name}
        return route

    # --- what happens rarely

    def refused(self, reason: Refusal) -> None:
        """A submission was refused."""
        self._counters[catalog.REFUSED, (reason,)] += 1

    def lines_dropped(self, count: int) -> None:
        """Log lines of an attempt exceeded its limits."""
        self._counters[catalog.LINES_DROPPED, ()] += count

    def committed(self, seconds: float, operations: int) -> None:
        """A write transaction was committed."""
        self._values[catalog.COMMIT_TIME].append(seconds)
        self._values[catalog.COMMIT_SIZE].append(operations)

    def on_event(self, event: Event) -> None:
        """Count an event."""
        if isinstance(event, Finished):
            if event.route is None:  # otherwise its attempt was counted
                self._unrouted.append(self._finished_elsewhere(event))
            return
        if isinstance(event, Rescued):
            self._counters[catalog.ATTEMPTS, (event.route, AttemptResult.LOST)] += 1
        elif isinstance(event, Delivered | DeliveryFailed):
            self._values[catalog.WEBHOOK_TIME].append(event.duration)
            if isinstance(event, Delivered):
                self._values[catalog.WEBHOOK_LAG].append(event.lag)
        metric, labels = _COUNTED[type(event)]
        self._counters[metric, labels(event)] += 1

    def _finished_elsewhere(self, event: Finished) -> Unrouted:
        """The end of a request that no attempt of this process has ended."""
        outcome = event.outcome
        created_at = (parse_request_id(event.request_id)[0] >> SEQUENCE_BITS) / 1000
        rows = [
            counted(catalog.FINISHED, "", outcome),
            *observed(catalog.REQUEST_TIME, [self._clock() - created_at], "", outcome),
        ]
        if event.error is not None:
            rows.append(counted(catalog.FAILURES, "", event.error))
        return Unrouted(event.request_id, tuple(rows))

    # --- to the database

    def take(self) -> Numbers:
        """What was counted since the last call."""
        rows = [*self._rows(), *((*key, value) for key, value in self._returned.items())]
        numbers = Numbers(rows, tuple(self._unrouted[:_MAX_UNROUTED]), self._tallied)
        self._start_over()
        return numbers

    def put_back(self, numbers: Numbers) -> None:
        """Keep numbers that could not be stored for the next `take`."""
        for name, labels, bucket, value in numbers.rows:
            key = name, labels, bucket
            self._returned[key] = self._returned.get(key, 0) + value
        self._unrouted += numbers.unrouted

    def _rows(self) -> Iterator[Row]:
        for name, route in self._routes.items():
            yield from _rows_of_route(name, route)
        for (metric, labels), count in self._counters.items():
            yield counted(metric, *labels, value=count)
        for metric, values in self._values.items():
            yield from observed(metric, values)


def _rows_of_route(name: str, route: _Route) -> Iterator[Row]:
    if route.submitted:
        yield counted(catalog.SUBMITTED, name, value=route.submitted)
    if route.responded:
        route.attempts[AttemptResult.RESPONDED] += route.responded
    for ending, count in route.attempts.items():
        yield counted(catalog.ATTEMPTS, name, ending, value=count)
    yield from observed(catalog.WAIT, route.waits, name)
    yield from observed(catalog.ATTEMPT_TIME, route.times, name)
    yield from observed(catalog.RESPONSE_SIZE, route.sizes, name)
    for cause, durations in route.ends.items():
        error = cause if isinstance(cause, ErrorType) else None
        outcome = outcome_of(None if isinstance(cause, ErrorType) else cause, error)
        yield counted(catalog.FINISHED, name, outcome, value=len(durations))
        yield from observed(catalog.REQUEST_TIME, durations, name, outcome)
        if error is not None:
            yield counted(catalog.FAILURES, name, error, value=len(durations))


def _ending(outcome: AttemptOutcome, end: AttemptEnd | None) -> AttemptResult:
    error = outcome.error_type if isinstance(outcome, Failure) else None
    if outcome is None:
        return AttemptResult.HANDED_BACK
    if error is ErrorType.CLIENT_CANCELLED or (end is not None and end.error is ErrorType.CLIENT_CANCELLED):
        return AttemptResult.CANCELLED
    if error is ErrorType.REQUEST_TIMEOUT:
        return AttemptResult.TIMED_OUT
    if end is not None and end.state in (JobState.DELAYED, JobState.QUEUED):
        return AttemptResult.RETRIED
    return AttemptResult.FAILED if error is not None else AttemptResult.RESPONDED


def _cause(outcome: AttemptOutcome, end: AttemptEnd | None) -> int | ErrorType | None:
    """What the request has ended with; None if it goes on."""
    if end is not None:
        return (end.error or end.status) if end.state in FINAL else None
    if isinstance(outcome, Failure):
        return outcome.error_type
    return None if outcome is None else outcome.status


_BY_STATUS = {410: "410", 429: "429"}


def _webhook_result(event: DeliveryFailed) -> tuple[str]:
    if event.status is not None:
        return (_BY_STATUS.get(event.status) or f"{event.status // 100}xx",)
    return (event.cause,)


_COUNTED: dict[type[Event], tuple[Metric, Callable[[Any], tuple[str, ...]]]] = {
    CircuitOpened: (catalog.CIRCUITS, lambda _: ("open",)),
    CircuitClosed: (catalog.CIRCUITS, lambda _: ("closed",)),
    ClaimLost: (catalog.LEASES_LOST, lambda _: ()),
    Delivered: (catalog.WEBHOOK_ATTEMPTS, lambda _: (WebhookResult.DELIVERED,)),
    DeliveryFailed: (catalog.WEBHOOK_ATTEMPTS, _webhook_result),
    DeliveryDead: (catalog.GIVEN_UP, lambda _: ()),
    Operated: (catalog.ACTIONS, lambda event: (event.action,)),
    Polled: (catalog.POLLS, lambda event: (event.provider or "other", "unfinished")),
    PollFailed: (catalog.POLLS, lambda event: (event.provider or "other", "failed")),
    Rescued: (catalog.RESCUED, lambda event: (event.state,)),
    ResultReceived: (catalog.RESULTS, lambda event: (event.channel, event.outcome)),
    ServiceError: (catalog.OUTAGES, lambda event: (event.where,)),
}
"""The counter of each event and the values of its labels."""
