"""The port around the work of a queue, for tracers and error trackers: they are active while the work is done, in its context.

Observers (`events`) learn what happened; an instrumentation is entered before a submission, an attempt or a call, and exited
after it. It may replace the headers that are stored, replayed or sent, which is how a trace continues in another process.
Without an instrumentation nothing is entered.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum

from .jobs.audit import Action
from .jobs.models import Claim, Failure, Headers, NewJob, Progress, StoredResponse, SubmitResult
from .syntax.hosts import Origin


@dataclass(slots=True, eq=False)
class SubmissionWork:
    """A job that is being stored. If the store refuses it, the context manager is exited with the `QueueError`."""

    job: NewJob = field(repr=False)
    """What is stored; may be replaced by a copy with other headers in `request`."""
    caller: Headers = field(repr=False)
    """The headers of the HTTP request that submits. In `job.request` are those of the call, which a task names itself."""
    status: int = 200
    """The status of the response if the job is stored."""
    result: SubmitResult | None = field(default=None, repr=False)
    """Set when the job is stored. Its `existing` is set if an earlier submission has created the job."""


@dataclass(slots=True, eq=False)
class AttemptWork:
    """An attempt. It is entered in the attempt's own context, so the application runs inside, with its background tasks."""

    claim: Claim = field(repr=False)
    """May be replaced by a copy with other headers in `request`, and with a `trace`, which is passed to later calls."""
    wait: float
    """Seconds from the submission to the start of this attempt."""
    progress_listeners: list[Callable[[Progress], None]] = field(default_factory=list, repr=False)
    """Called with each progress report of the application, in its thread; an instrumentation may add some."""
    outcome: StoredResponse | Failure | None = field(default=None, repr=False)
    """Set at the end: the response, or why there is none. None if the attempt was interrupted: handed back, or taken over."""
    is_handed_back: bool = False
    """Set at the end: the attempt was interrupted by the shutdown, and the job runs again."""
    error: BaseException | None = field(default=None, repr=False)
    """Set at the end: what the application raised. Its text may contain data of the submitter."""


class CallKind(StrEnum):
    """What the queue calls other services for."""

    WEBHOOK = "webhook"
    TARGET = "target"
    """The call of an external target, by an attempt of a task; inside the `AttemptWork`."""
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
    message_id: str = ""
    """The id of the webhook, which is the same in all attempts to deliver it."""
    label: str = ""
    """The kind of webhook (`jobs.models.WebhookKind`), or the provider of a task."""
    is_named: bool = True
    """Whether the submitter has named the host. False if only a response did, e.g. by a redirect."""
    trace: str | None = None
    """`Claim.trace` of the last attempt, for a webhook or a poll."""
    is_at_once: bool = False
    """Whether the call follows that attempt at once. If not, hours may have passed."""
    status: int | None = None
    """Set when the head of the response has arrived."""


@dataclass(slots=True, eq=False)
class CallbackWork:
    """A callback or a signal of an external service for a request that is known.

    If it is refused, the context manager is exited with the `QueueError`.
    """

    channel: str
    """`callback` or `signal`."""
    request_id: str
    caller: Headers = field(repr=False)
    """The headers of the HTTP request."""
    trace: str | None = None
    """`Claim.trace` of the last attempt."""
    result: str = ""
    """Set at the end: `progress`, `completed` or `failed`; empty for a repetition that changes nothing."""


@dataclass(slots=True, eq=False)
class ActionWork:
    """What an operator does, or a client that cancels a request."""

    action: Action
    operator: str | None
    """The name of the operator; None for a client."""
    count: int | None = None
    """Set at the end: how many requests or webhooks were changed."""


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

    def callback(self, work: CallbackWork) -> AbstractContextManager[object]:
        """Entered while a callback or a signal is handled."""
        return nullcontext()

    def action(self, work: ActionWork) -> AbstractContextManager[object]:
        """Entered while something is done for an operator."""
        return nullcontext()


class Instruments(Instrumentation):
    """All instrumentations of a queue, as its parts use them; `observability.instrumentation` implements it."""

    def keep_trace(self, claim: Claim) -> None:
        """Store `claim.trace` for later calls, if there is one. Returns at once; an error is reported, and changes nothing."""

    async def trace_of(self, key: int) -> str | None:
        """The stored trace of a job; None if there is none, or if it cannot be read."""
        return None


def inside(instruments: Instruments | None, work: CallWork) -> AbstractContextManager[object]:
    """What the instrumentations of a queue enter for a call; nothing if the queue has none."""
    return nullcontext() if instruments is None else instruments.call(work)
