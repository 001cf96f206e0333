"""The port around the work of a queue, for tracers and error trackers: they are active while the work is done, in its context.

Observers (`events`) learn what happened; an instrumentation is entered before a submission, an attempt or a call, and exited
after it. It may replace the headers that are stored, replayed or sent, which is how a trace continues in another process.
Without an instrumentation none of these values is made.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum

from .jobs.models import Claim, Failure, Headers, NewJob, StoredResponse, SubmitResult
from .syntax.hosts import Origin


@dataclass(slots=True, eq=False)
class SubmissionWork:
    """A job that is being stored. If the store refuses it, the context manager is exited with the `QueueError`."""

    job: NewJob = field(repr=False)
    """What is stored; may be replaced by a copy with other headers in `request`."""
    caller: Headers = field(repr=False)
    """The headers of the HTTP request that submits. In `job.request` are those of the call, which a task names itself."""
    result: SubmitResult | None = field(default=None, repr=False)
    """Set when the job is stored. Its `existing` is set if an earlier submission has created the job."""


@dataclass(slots=True, eq=False)
class AttemptWork:
    """An attempt. It is entered in the attempt's own context, so the application runs inside, with its background tasks."""

    claim: Claim = field(repr=False)
    """May be replaced by a copy with other headers in `request`."""
    wait: float
    """Seconds from the submission to the start of this attempt."""
    outcome: StoredResponse | Failure | None = field(default=None, repr=False)
    """Set at the end: the response of this attempt or why there is none. None if it was handed back, or its claim was lost."""
    is_handed_back: bool = False
    """Set at the end: the attempt was interrupted by the shutdown, and the job runs again."""
    error: BaseException | None = field(default=None, repr=False)
    """Set at the end: what the application raised. Its text may contain data of the submitter."""


class CallKind(StrEnum):
    """What the queue calls other services for."""

    WEBHOOK = "webhook"
    TARGET = "target"
    """The call of an external target, by an attempt of a task."""
    POLL = "poll"


@dataclass(slots=True, eq=False)
class CallWork:
    """A call of another service. If there is no response, the context manager is exited with an `OutboundError`.

    Its path and its query are not part of this, because they may contain keys.
    """

    kind: CallKind
    request_id: str
    method: str
    origin: Origin | None
    """Scheme, host and port; None for a URL that cannot be read."""
    number: int
    """Which call of its kind this is, from 1: the delivery attempt, the poll, or the hop of a redirect."""
    headers: Headers = field(repr=False)
    """What is sent; may be replaced."""
    label: str = ""
    """The kind of webhook (`jobs.models.WebhookKind`), or the provider of a task."""
    is_named: bool = True
    """Whether the submitter or the operator has named the host. False if only a response did, e.g. by a redirect."""
    status: int | None = None
    """Set when the head of the response has arrived."""


class Instrumentation:
    """Base of instrumentations; each method does nothing by default. Pass an instance in `observers`.

    The context managers are entered and exited in the event loop, so they must be quick. An exception that one of them raises
    by itself is reported and ignored; one never suppresses the exception that it is exited with.
    """

    kinds: frozenset[type] | None = frozenset()
    """The events that `on_event` receives, as in `events.Observer`; by default none."""

    def on_event(self, event: object) -> None:
        """Handle one event."""

    def submission(self, work: SubmissionWork) -> AbstractContextManager[object]:
        """Entered while a job is stored. A submission that is refused earlier, e.g. for its path, does not reach this."""
        return nullcontext()

    def attempt(self, work: AttemptWork) -> AbstractContextManager[object]:
        """Entered while an attempt runs."""
        return nullcontext()

    def call(self, work: CallWork) -> AbstractContextManager[object]:
        """Entered while another service is called, until its response is complete."""
        return nullcontext()
