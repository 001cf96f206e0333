"""Fills Sentry's view of queues: a span for each submission, a transaction for each attempt, and issues (extra `sentry`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from queue_middleware.instrumentation import AttemptWork, Instrumentation, SubmissionWork
from queue_middleware.jobs.models import ErrorType, StoredResponse

try:
    import sentry_sdk
except ImportError as missing:
    raise ImportError("SentryObserver needs the extra 'sentry': pip install 'queue-middleware[sentry]'") from missing

from .sentry_issues import KINDS, TAGS, IssueReporter, watching_errors
from .sentry_trace import stays_here, trace_in, with_active_trace

_PUBLISH, _PROCESS = "queue.publish", "queue.process"
_ORIGIN = "auto.queue.queue_middleware"
_STATUSES = {ErrorType.CLIENT_CANCELLED: "cancelled", ErrorType.REQUEST_TIMEOUT: "deadline_exceeded"}


class SentryObserver(Instrumentation):
    """Reports to the Sentry client of the process: `QueueMiddleware(app, observers=[SentryObserver()])`.

    * A submission is a span `queue.publish`; where no transaction is active it is a transaction.
    * An attempt is a transaction `queue.process` in the same trace, and the application runs inside it.
    * Events inside an attempt have the tags `queue.request_id`, `queue.attempt` and `queue.route`.
    * Issues: what the application raises, unless an integration has reported it; outages; webhooks that are given up; open
      circuits; slots that stay occupied; requests that failed because their process was lost.

    Without `sentry_sdk.init` it does nothing. Nothing of a header, a query, a body or a URL is reported, except by the
    integration of the application's framework, which does so as in direct calls.
    """

    kinds = KINDS

    def __init__(self) -> None:
        self._issues = IssueReporter()

    def on_event(self, event: Any) -> None:
        """Report an issue, if the event is one."""
        if sentry_sdk.is_initialized():
            self._issues.report(event)

    def submission(self, work: SubmissionWork) -> AbstractContextManager[object]:
        """A span around a submission; its trace is stored with the request."""
        return _publish(work) if _has_transactions() else nullcontext()

    def attempt(self, work: AttemptWork) -> AbstractContextManager[object]:
        """A transaction around an attempt; its trace is in the headers that the application receives."""
        return _process(work) if sentry_sdk.is_initialized() else nullcontext()


def _has_transactions() -> bool:
    """Whether the SDK is initialized and has transactions: while it streams spans, it has none."""
    options = sentry_sdk.get_client().options
    lifecycles = options.get("trace_lifecycle"), (options.get("_experiments") or {}).get("trace_lifecycle")
    return sentry_sdk.is_initialized() and "stream" not in lifecycles


@contextmanager
def _publish(work: SubmissionWork) -> Iterator[None]:
    job = work.job
    with _span_of_submission(work) as span:
        _describe(span, job.route, len(job.request.body))
        if stays_here(job.task):
            work.job = job.replace(request=with_active_trace(job.request))
        yield
        if work.request_id:
            span.set_data("messaging.message.id", work.request_id)


@contextmanager
def _span_of_submission(work: SubmissionWork) -> Iterator[Any]:
    name: Any = {"op": _PUBLISH, "name": work.job.route, "origin": _ORIGIN}
    # A span that belongs to no transaction is never sent, nor are its children.
    if getattr(sentry_sdk.get_current_span(), "containing_transaction", None) is not None:
        with sentry_sdk.start_span(**name) as span:
            yield span
        return
    with sentry_sdk.isolation_scope():
        transaction = sentry_sdk.continue_trace(trace_in(work.caller), **name, source="route")
        with sentry_sdk.start_transaction(transaction) as span:
            yield span


@contextmanager
def _process(work: AttemptWork) -> Iterator[None]:
    claim = work.claim
    values = (claim.request_id, claim.attempt, claim.route)
    with sentry_sdk.isolation_scope() as scope, watching_errors(scope):
        scope.clear_breadcrumbs()
        for name, value in zip(TAGS, values, strict=True):
            scope.set_tag(f"queue.{name}", str(value))
        with _transaction_of_attempt(work) if _has_transactions() else nullcontext():
            yield


@contextmanager
def _transaction_of_attempt(work: AttemptWork) -> Iterator[None]:
    claim = work.claim
    transaction = sentry_sdk.continue_trace(
        trace_in(claim.request.headers), op=_PROCESS, name=claim.route, source="route", origin=_ORIGIN
    )
    with sentry_sdk.start_transaction(transaction) as span:
        _describe(span, claim.route, len(claim.request.body))
        span.set_data("messaging.message.id", claim.request_id)
        span.set_data("messaging.message.receive.latency", work.wait * 1000)
        span.set_data("messaging.message.retry.count", claim.attempt - 1)
        if stays_here(claim.task):
            work.claim = claim.replace(request=with_active_trace(claim.request))
        try:
            yield
        finally:
            span.set_status(_status_of(work))


def _describe(span: Any, route: str, size: int) -> None:
    span.set_data("messaging.system", "queue_middleware")
    span.set_data("messaging.destination.name", route)
    span.set_data("messaging.message.body.size", size)


def _status_of(work: AttemptWork) -> str:
    """The status of the span, one of Sentry's names."""
    outcome = work.outcome
    if outcome is None:
        return "aborted"
    if isinstance(outcome, StoredResponse):
        return "ok" if outcome.status < 500 else "internal_error"
    return _STATUSES.get(outcome.error_type, "internal_error")
