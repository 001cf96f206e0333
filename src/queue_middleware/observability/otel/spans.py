"""Spans around submissions, attempts, calls, callbacks and actions, with links and headers that lead from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, get_current_span, get_tracer
from opentelemetry.util.types import AttributeValue

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
from .scopes import SpanScope, fail

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

    def submission(self, work: SubmissionWork) -> SpanScope:
        """A child of the span of the caller. It takes the place of that span in the stored request."""
        job = work.job
        request = job.request
        attributes = _of_route(job.route, "submit", names.SEND)
        attributes[names.MESSAGE_BODY_SIZE] = len(request.body)
        if self._shows_identities and (identity := identity_of(job.client)):
            attributes[names.ENDUSER_ID] = identity
        name, context = names.SUBMIT.format(route=job.route), _of_caller(work.caller)
        span = self._tracer.start_span(name, context, SpanKind.PRODUCER, attributes)
        here = span.get_span_context()
        if here.is_valid:
            work.job = job.replace(request=request.replace(headers=with_trace(request.headers, here, trace_text(here))))
        return SpanScope(span, partial(_add_receipt, work), shows_status=True)

    # --- attempts

    def attempt(self, work: AttemptWork) -> SpanScope:
        """The root of a trace with a link to the submission, or its child. The application's own spans are children of it."""
        claim = work.claim
        request = claim.request
        attributes = _of_route(claim.route, "process", names.PROCESSING)
        attributes[names.MESSAGE_ID] = claim.request_id
        attributes[names.ATTEMPT] = claim.attempt
        attributes[names.WAIT] = work.wait
        context, links = self._after(read_headers(request.headers))
        name = names.PROCESS.format(route=claim.route)
        span = self._tracer.start_span(name, context, SpanKind.CONSUMER, attributes, links)
        here = span.get_span_context()
        if here.is_valid:
            trace = trace_text(here)
            work.claim = claim.replace(request=request.replace(headers=with_trace(request.headers, here, trace)), trace=trace)
        if span.is_recording():
            work.progress_listeners.append(_ProgressEvents(span))
        return SpanScope(span, partial(_add_outcome, work))

    # --- calls

    def call(self, work: CallWork) -> SpanScope:
        """The call of a target is a child of the attempt; webhooks and polls are linked to it."""
        context: Context | None = None
        links: Sequence[Link] = ()
        if work.kind is not CallKind.TARGET:
            context, links = self._after(read_trace(work.trace), at_once=work.is_at_once)
        name = names.CALL.format(method=work.method)
        span = self._tracer.start_span(name, context, SpanKind.CLIENT, _of_call(work), links)
        here = span.get_span_context()
        if here.is_valid:
            is_sent = self._sends_trace and work.is_named
            work.headers = with_trace(work.headers, here, trace_text(here)) if is_sent else without_trace(work.headers)
        return SpanScope(span, partial(_add_status, work))

    # --- callbacks and actions

    def callback(self, work: CallbackWork) -> SpanScope:
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
        span = self._tracer.start_span(name, _of_caller(work.caller), SpanKind.SERVER, attributes, links)
        return SpanScope(span, partial(_add_result, work), shows_status=True)

    def action(self, work: ActionWork) -> SpanScope:
        """A child of the span in which the operator acts."""
        attributes: _Attributes = {}
        if self._shows_identities and work.operator is not None:
            attributes[names.ENDUSER_ID] = work.operator
        span = self._tracer.start_span(names.ACTION.format(action=work.action), None, SpanKind.INTERNAL, attributes)
        return SpanScope(span, partial(_add_count, work), shows_status=True)

    def _after(self, earlier: SpanContext | None, *, at_once: bool = False) -> tuple[Context, Sequence[Link]]:
        """The context and the links of a span that follows an earlier one, which may have ended long ago.

        The context names nothing else: the task may have been started from anywhere.
        """
        if earlier is None:
            return Context(), ()
        return (child_of(earlier), ()) if at_once or self._nests else (Context(), (Link(earlier),))


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


def _add_receipt(work: SubmissionWork, span: Span) -> None:
    if (result := work.result) is not None:
        attributes: _Attributes = {
            names.MESSAGE_ID: result.request_id,
            names.POSITION: result.position,
            names.HTTP_STATUS: work.status,
        }
        if result.existing is not None:
            attributes[names.EXISTING] = True
        span.set_attributes(attributes)


def _add_outcome(work: AttemptWork, span: Span) -> None:
    outcome = work.outcome
    if work.is_handed_back:
        span.add_event(names.HANDED_BACK)
    elif isinstance(outcome, Failure):
        if outcome.error_type is ErrorType.CLIENT_CANCELLED:
            span.set_attribute(names.ERROR_TYPE, outcome.error_type.value)
        else:
            fail(span, outcome.error_type.value)
    elif outcome is not None:
        span.set_attribute(names.HTTP_STATUS, outcome.status)
        if work.error is not None:
            fail(span, type(work.error).__name__)
        elif outcome.status >= 500:
            fail(span, str(outcome.status))


def _add_status(work: CallWork, span: Span) -> None:
    if work.status is not None:
        span.set_attribute(names.HTTP_STATUS, work.status)
        if work.status >= 400:
            fail(span, str(work.status))


def _add_result(work: CallbackWork, span: Span) -> None:
    if work.result:
        span.set_attribute(names.RESULT, work.result)


def _add_count(work: ActionWork, span: Span) -> None:
    if work.count is not None:
        span.set_attribute(names.COUNT, work.count)
