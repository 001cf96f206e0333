"""All metrics of a queue, as a table. `docs/reference/metrics.md`, the dashboard and the alert rules are compared with it.

No label has a value that a submitter chooses: routes are templates of the application (`jobs.routes`), at most 100 and `other`.
"""

from __future__ import annotations

from enum import StrEnum

from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.models import JobState
from queue_middleware.jobs.outcomes import Outcome
from queue_middleware.jobs.struct import Struct

PREFIX = "queue_middleware_"
"""Of the names of all metrics."""


class Kind(StrEnum):
    """The type of a metric, as Prometheus names it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(Struct, frozen=True):
    """One metric. Counters and histograms are stored in the database; a gauge is read when it is asked for."""

    name: str
    """Without `PREFIX`; that of a counter ends with `_total`."""
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """The upper bounds of a histogram, without infinity."""

    @property
    def full_name(self) -> str:
        """The name that Prometheus stores."""
        return PREFIX + self.name


_TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_WEBHOOK_TIMES = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
_LAGS = (1, 5, 30, 60, 300, 1800, 7200, 18000, 36000, 86400)
_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 64_000_000)
_COMMIT_TIMES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_COMMIT_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, text, labels)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, text, labels, buckets)


SUBMITTED = _counter("requests_submitted_total", "Requests that were stored.", "route")
REFUSED = _counter("requests_refused_total", "Submissions that were refused; nothing was stored.", "reason")
FINISHED = _counter("requests_finished_total", "Requests that reached their final state.", "route", "outcome")
FAILURES = _counter("request_failures_total", "Requests that ended without a response.", "route", "error_type")
ATTEMPTS = _counter("attempts_total", "Attempts that ended.", "route", "ending")
WAIT = _histogram("wait_seconds", "From the time at which a request could start to its first start.", _TIMES, "route")
ATTEMPT_TIME = _histogram("attempt_seconds", "From the start of an attempt to its end.", _TIMES, "route")
REQUEST_TIME = _histogram("request_seconds", "From the submission of a request to its end.", _TIMES, "route", "outcome")
RESPONSE_SIZE = _histogram("response_bytes", "Size of the bodies of stored responses.", _SIZES, "route")
REQUESTS = _gauge("requests", "Requests that have not ended.", "state", "route")
OLDEST = _gauge("oldest_claimable_seconds", "Age of the oldest request that could start now; 0 without one.", "route")
SLOTS = _gauge("slots", "Slots of all processes.")
SLOTS_BUSY = _gauge("slots_busy", "Occupied slots of all processes.")
SLOTS_STUCK = _gauge("slots_stuck", "Attempts that were ended and whose code still runs.")
PROCESSES = _gauge("processes", "Processes that run the queue.")
STREAMS = _gauge("streams", "Open status streams of all processes.")
PAUSED = _gauge("paused", "1 for each route whose requests do not start; '*' stands for all routes.", "route")
WEBHOOKS = _gauge("webhooks", "Webhooks that are not delivered, counted up to 100,000.", "state")
WEBHOOK_ATTEMPTS = _counter("webhook_attempts_total", "Delivery attempts.", "result")
WEBHOOK_TIME = _histogram("webhook_attempt_seconds", "Duration of a delivery attempt.", _WEBHOOK_TIMES)
WEBHOOK_LAG = _histogram("webhook_lag_seconds", "From the time at which a webhook was first due to its acceptance.", _LAGS)
WEBHOOK_OLDEST = _gauge("webhook_oldest_due_seconds", "How long the longest waiting receiver has been due; 0 without one.")
GIVEN_UP = _counter("webhooks_given_up_total", "Webhooks that were given up.")
RECEIVERS = _gauge("receivers", "Receivers, once for each state of health that their flows have.", "health")
CIRCUITS = _counter("circuits_total", "Circuits of receivers that opened or closed.", "to")
POLLS = _counter("polls_total", "Polls of providers that did not finish the task.", "provider", "result")
RESULTS = _counter("task_results_total", "Results that external services have delivered.", "channel", "result")
LEASES_LOST = _counter("leases_lost_total", "Results of attempts that were discarded, because the lease had expired.")
RESCUED = _counter("rescued_total", "Requests whose process was lost, by the state that followed.", "state")
OUTAGES = _counter("outages_total", "Unexpected errors of a service of the queue.", "where")
LINES_DROPPED = _counter("log_lines_dropped_total", "Log lines of requests that exceeded the limits.")
COMMIT_TIME = _histogram("commit_seconds", "Duration of a write transaction, with the wait for the write lock.", _COMMIT_TIMES)
COMMIT_SIZE = _histogram("commit_operations", "Operations in a write transaction.", _COMMIT_SIZES)
DATABASE_SIZE = _gauge("database_bytes", "Size of the files of the database.", "part")
DISK_FREE = _gauge("disk_free_bytes", "Free space of the disk of the database.")
DISK_FLOOR = _gauge("disk_floor_bytes", "Free space below which submissions are refused.")
ACTIONS = _counter("operator_actions_total", "What operators have done.", "action")
QUEUE_LIMIT = _gauge("queue_limit", "Queued requests above which submissions are refused (max_queued).")
BUILD = _gauge("build_info", "1, with the version of the package and the kind of the store.", "version", "store")

CATALOG: tuple[Metric, ...] = (
    SUBMITTED, REFUSED, FINISHED, FAILURES, ATTEMPTS, WAIT, ATTEMPT_TIME, REQUEST_TIME, RESPONSE_SIZE, REQUESTS, OLDEST, SLOTS,
    SLOTS_BUSY, SLOTS_STUCK, PROCESSES, STREAMS, PAUSED, WEBHOOKS, WEBHOOK_ATTEMPTS, WEBHOOK_TIME, WEBHOOK_LAG, WEBHOOK_OLDEST,
    GIVEN_UP, RECEIVERS, CIRCUITS, POLLS, RESULTS, LEASES_LOST, RESCUED, OUTAGES, LINES_DROPPED, COMMIT_TIME, COMMIT_SIZE,
    DATABASE_SIZE, DISK_FREE, DISK_FLOOR, ACTIONS, QUEUE_LIMIT, BUILD,
)  # fmt: skip
"""All metrics, in the order in which they are shown."""


class AttemptResult(StrEnum):
    """Values of the label `ending`."""

    RESPONDED = "responded"
    """The application has responded, and the response is stored; or the request is awaiting an external service."""
    FAILED = "failed"
    """It ended its request without a response."""
    RETRIED = "retried"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    HANDED_BACK = "handed_back"
    CANCELLED = "cancelled"


class Refusal(StrEnum):
    """Values of the label `reason`."""

    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    NOT_ALLOWED = "not_allowed"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    FULL = "full"
    DISK = "disk"
    BUSY = "busy"
    STOPPING = "stopping"


class WebhookResult(StrEnum):
    """Values of the label `result` of delivery attempts, besides the statuses 410 and 429, and 3xx, 4xx and 5xx for others."""

    DELIVERED = "delivered"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    REFUSED = "refused"
    NOT_SENT = "not_sent"


FIRST_VALUES: dict[str, tuple[str, ...]] = {
    REFUSED.name: tuple(Refusal),
    CIRCUITS.name: ("open", "closed"),
    RESCUED.name: (JobState.DELAYED, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED),
    ACTIONS.name: tuple(Action),
}
"""Values of the only label of a counter that are shown as 0 from the start: Prometheus sees no increase of a first value."""

TALLIED_ROUTES = 20
"""Routes whose numbers are also kept by minute; those of others are kept together, as `other`."""
REQUESTS_FAILED = "requests_failed"
REQUESTS_CANCELLED = "requests_cancelled"
TALLIED = frozenset({SUBMITTED.name, FINISHED.name, WAIT.name, ATTEMPT_TIME.name})
"""Metrics that are also kept by minute, for 48 hours; and so are two parts of `FINISHED`, which have names of their own."""
FAILED_OUTCOMES = frozenset({Outcome.SERVER_ERROR, Outcome.FAILED})
