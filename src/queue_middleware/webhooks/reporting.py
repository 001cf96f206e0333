"""Emits the events of an attempt to deliver a webhook, once it is recorded."""

from __future__ import annotations

from queue_middleware.events import CircuitClosed, CircuitOpened, Delivered, DeliveryDead, DeliveryFailed, Emit

from .fairness import submitter_of_flow
from .models import DeliveryAttempt, DeliveryClaim, ReceiverHealth, Settled
from .retry import AttemptDecision, FailureCause, error_for_status


def report_attempt(
    emit: Emit, delivery: DeliveryClaim, attempt: DeliveryAttempt, decision: AttemptDecision, settled: Settled
) -> None:
    """Emit how the attempt ended, and what followed from it."""
    ids = delivery.id, delivery.request_id, delivery.kind, delivery.host, delivery.attempt
    if attempt.error is None:
        lag = max(0.0, (attempt.at - delivery.since) / 1000) + attempt.duration
        emit(Delivered(*ids, attempt.status, attempt.duration, lag))
    else:
        error = _without_redirect_target(attempt.status, attempt.error)
        # A superseded event is not tried again, and nothing is lost.
        retry_in = None if settled.superseded else decision.retry_in
        emit(DeliveryFailed(*ids, attempt.status, decision.cause or FailureCause.NOT_SENT, error, attempt.duration, retry_in))
        if decision.retry_in is None:
            emit(DeliveryDead(*ids, error))
    for other in settled.given_up:
        error = "its host has been failing for as long as the whole schedule takes"
        emit(DeliveryDead(other.id, other.request_id, other.kind, other.host, other.attempt, error))
    if settled.host_change or settled.flow_change:
        _report_circuit(emit, delivery, settled)


def _report_circuit(emit: Emit, delivery: DeliveryClaim, settled: Settled) -> None:
    """One event at most: for the whole host if its circuit changed, otherwise for the flow."""
    for change, submitter in ((settled.host_change, None), (settled.flow_change, submitter_of_flow(delivery.flow))):
        if change is not None and ReceiverHealth.OPEN in change:
            if change[1] is ReceiverHealth.OPEN:
                emit(CircuitOpened(delivery.host, settled.pause, submitter))
            else:
                emit(CircuitClosed(delivery.host, submitter))
            return


def _without_redirect_target(status: int | None, error: str) -> str:
    """The error for observers and the log: a redirect often leads to the URL of the webhook itself, with a slash or https."""
    return error if status is None else error_for_status(status) or error
