"""Spans around submissions, attempts, calls, callbacks and actions, with links and headers that lead from one to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, get_current_span, get_tracer
from opentelemetry.util.types import AttributeValue

from queue_middleware.errors import QueueError
from queue_middleware.instrumentation import (
    ActionWork,
    AttemptWork,
    CallbackWork,
    CallKind,
    CallWork,
    Instrumentation,
    SubmissionWork,
)
from queue_middleware.jobs.models import ErrorType, Failure, Headers, Progress, identity_of
from queue_middleware.settings import Settings

from . import names
from .propagation import child_of, read_headers, read_trace, trace_text, with_trace, without_trace

MAX_PROGRESS_EVENTS = 10
"""Of one attempt."""
_REDACTED = "/REDACTED"
"""In place of the path and the query of a URL, which may contain keys."""

_Attributes = dict[str, AttributeValue]


class SpanInstrumentation(Instrumentation):
    """Uses the tracer provider of the process. Its spans contain no headers, queries, bodies or texts of errors."""

    def __init__(self, settings: Settings, version: str) -> None:
        self._tracer = get_tracer(names.SCOPE, version, schema_url=names.SCHEMA_URL)
        self._nests = settings.tracing == "parent"
        self._sends_trace = settings.trace_outbound
        self._shows_identities = settings.otel_identities

    # --- submissions

    @contextmanager
    def submission(self, work: SubmissionWork) -> Iterator[None]:
        """A child of the span of the caller. It takes the place of that span in the stored request."""
        job = work.job
        attributes = _of_route(job.route, "submit", names.SEND)
        attributes[names.MESSAGE_BODY_SIZE] = len(job.request.body)
        if self._shows_identities and (identity := identity_of(job.client)):
            attributes[names.ENDUSER_ID] = identity
        name = names.SUBMIT.format(route=job.route)
        with self._span(name, SpanKind.PRODUCER, attributes, _of_caller(work.caller)) as span:
            request = job.request
            work.job = job.replace(request=request.replace(headers=_replaced(request.headers, span.get_span_context())))
            yield
            if (result := work.result) is not None:
                span.set_attribute(names.MESSAGE_ID, result.request_id)
                span.set_attribute(names.POSITION, result.position)
                if result.existing is not None:
                    span.set_attribute(names.EXISTING, True)

    # --- attempts

    @contextmanager
    def attempt(self, work: AttemptWork) -> Iterator[None]:
        """The root of a trace with a link to the submission, or its child. The application's own spans are children of it."""
        claim = work.claim
        attributes = _of_route(claim.route, "process", names.PROCESSING)
        attributes[names.MESSAGE_ID] = claim.request_id
        attributes[names.ATTEMPT] = claim.attempt
        attributes[names.WAIT] = work.wait
        context, links = self._after(read_headers(claim.request.headers))
        name = names.PROCESS.format(route=claim.route)
        with self._span(name, SpanKind.CONSUMER, attributes, context, links) as span:
            here, request = span.get_span_context(), claim.request
            if here.is_valid:
                request = request.replace(headers=with_trace(request.headers, here))
                work.claim = claim.replace(request=request, trace=trace_text(here))
            if span.is_recording():
                work.progress_listeners.append(_ProgressEvents(span))
            try:
                yield
            finally:
                _add_outcome(span, work)

    # --- calls

    @contextmanager
    def call(self, work: CallWork) -> Iterator[None]:
        """The call of a target is a child of the attempt; webhooks and polls are linked to it."""
        context: Context | None = None
        links: Sequence[Link] = ()
        if work.kind is not CallKind.TARGET:
            context, links = self._after(read_trace(work.trace), at_once=work.is_at_once)
        name = names.CALL.format(method=work.method)
        with self._span(name, SpanKind.CLIENT, _of_call(work), context, links) as span:
            here = span.get_span_context()
            if self._sends_trace and work.is_named:
                work.headers = _replaced(work.headers, here)
            elif here.is_valid:
                work.headers = without_trace(work.headers)
            yield
            if work.status is not None:
                span.set_attribute(names.HTTP_STATUS, work.status)
                if work.status >= 400:
                    _fail(span, str(work.status))

    # --- callbacks and actions

    @contextmanager
    def callback(self, work: CallbackWork) -> Iterator[None]:
        """A child of the span of the provider, with a link to the attempt."""
        attempt = read_trace(work.trace)
        attributes: _Attributes = {
            names.MESSAGING_SYSTEM: names.SYSTEM,
            names.OPERATION_NAME: work.channel,
            names.OPERATION_TYPE: names.SETTLE,
            names.MESSAGE_ID: work.request_id,
            names.CHANNEL: work.channel,
        }
        links = () if attempt is None else (Link(attempt),)
        name = names.CALLBACK.format(channel=work.channel)
        with self._span(name, SpanKind.SERVER, attributes, _of_caller(work.caller), links) as span:
            yield
            if work.result:
                span.set_attribute(names.RESULT, work.result)

    @contextmanager
    def action(self, work: ActionWork) -> Iterator[None]:
        """A child of the span in which the operator acts."""
        attributes: _Attributes = {}
        if self._shows_identities and work.operator is not None:
            attributes[names.ENDUSER_ID] = work.operator
        with self._span(names.ACTION.format(action=work.action), SpanKind.INTERNAL, attributes) as span:
            yield
            if work.count is not None:
                span.set_attribute(names.COUNT, work.count)

    # --- what all of them need

    def _after(self, earlier: SpanContext | None, *, at_once: bool = False) -> tuple[Context, Sequence[Link]]:
        """The context and the links of a span that follows an earlier one, which may have ended long ago.

        The context names nothing else: the task may have been started from anywhere.
        """
        if earlier is None:
            return Context(), ()
        return (child_of(earlier), ()) if at_once or self._nests else (Context(), (Link(earlier),))

    @contextmanager
    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: _Attributes,
        context: Context | None = None,
        links: Sequence[Link] = (),
    ) -> Iterator[Span]:
        """A span that is current inside. Of an exception it shows the class only: its text may contain data of a client."""
        spanning: AbstractContextManager[Span] = self._tracer.start_as_current_span(
            name, context, kind, attributes, links, record_exception=False, set_status_on_exception=False
        )
        with spanning as span:
            try:
                yield span
            except Exception as error:
                _fail(span, type(error).__name__)
                if isinstance(error, QueueError) and kind is not SpanKind.CLIENT:
                    span.set_attribute(names.HTTP_STATUS, error.status)
                raise


class _ProgressEvents:
    """Adds the first reports of progress to the span of an attempt."""

    __slots__ = ("_left", "_span")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._left = MAX_PROGRESS_EVENTS

    def __call__(self, progress: Progress) -> None:
        if self._left:
            self._left -= 1
            self._span.add_event(names.PROGRESS, {names.FRACTION: progress.fraction})


def _of_route(route: str, name: str, kind: str) -> _Attributes:
    return {
        names.MESSAGING_SYSTEM: names.SYSTEM,
        names.OPERATION_NAME: name,
        names.OPERATION_TYPE: kind,
        names.DESTINATION_TEMPLATE: route,
    }


def _of_call(work: CallWork) -> _Attributes:
    attributes: _Attributes = {names.HTTP_METHOD: work.method, names.REQUEST_ID: work.request_id}
    if work.origin is not None:
        attributes |= {
            names.SERVER_ADDRESS: work.origin.host,
            names.SERVER_PORT: work.origin.port,
            names.URL_FULL: f"{work.origin}{_REDACTED}",
        }
    if work.number > 1:
        attributes[names.HTTP_RESEND_COUNT] = work.number - 1
    if work.message_id:
        attributes[names.MESSAGE_ID] = work.message_id
    if work.label:
        attributes[names.WEBHOOK_KIND if work.kind is CallKind.WEBHOOK else names.PROVIDER] = work.label
    return attributes


def _of_caller(headers: Headers) -> Context | None:
    """The context of a child of the caller's span: the current one if a middleware has started it, or that of the headers."""
    if get_current_span().get_span_context().is_valid:
        return None
    caller = read_headers(headers)
    return Context() if caller is None else child_of(caller)


def _replaced(headers: Headers, span: SpanContext) -> Headers:
    return with_trace(headers, span) if span.is_valid else headers


def _add_outcome(span: Span, work: AttemptWork) -> None:
    outcome = work.outcome
    if work.is_handed_back:
        span.add_event(names.HANDED_BACK)
    elif isinstance(outcome, Failure):
        span.set_attribute(names.ERROR_TYPE, outcome.error_type.value)
        if outcome.error_type is not ErrorType.CLIENT_CANCELLED:
            span.set_status(Status(StatusCode.ERROR))
    elif outcome is not None:
        span.set_attribute(names.HTTP_STATUS, outcome.status)
        if work.error is not None:
            _fail(span, type(work.error).__name__)
        elif outcome.status >= 500:
            _fail(span, str(outcome.status))


def _fail(span: Span, error_type: str) -> None:
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR))
