"""Which reason each error has that refuses a submission."""

from __future__ import annotations

import inspect

from queue_middleware import errors
from queue_middleware.observability.metrics.catalog import Refusal
from queue_middleware.web.refusals import REASONS, refusal_of

ELSEWHERE = {
    *("QueueError", "Unavailable", "UnknownRoute", "UnknownRequest", "MethodNotAllowed", "AlreadyEnded", "NotKept", "NotEnded"),
    *("MaintenanceRefused", "SelectionDiffers"),
}
"""Errors that do not refuse a submission."""
NO_RESPONSE = {"SettingsError", "RotationRefused"}


def test_every_error_that_a_submission_may_cause_has_a_reason() -> None:
    """An error that is added gets one by its base or by its status; those of the table are meant to be complete."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.QueueError)]
    missing = {kind.__name__ for kind in kinds if not any(base in REASONS for base in kind.__mro__)} - NO_RESPONSE
    others = {name for name in missing if not name.startswith(("Outbound", "Verification", "Keys", "_"))}
    assert others <= ELSEWHERE


def test_a_subclass_has_the_reason_of_its_base() -> None:
    class Special(errors.QueueFull):
        pass

    assert refusal_of(Special("full", 1)) is Refusal.FULL


def test_an_unknown_error_is_classified_by_its_status() -> None:
    assert refusal_of(errors.UnknownRoute("no")) is Refusal.BAD_REQUEST
    assert refusal_of(errors.QueueError("defect")) is Refusal.BUSY


def test_every_reason_is_used() -> None:
    assert set(REASONS.values()) == set(Refusal)
