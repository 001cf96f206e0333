"""Why submissions are refused, in the words of the metric `requests_refused_total`."""

from __future__ import annotations

from queue_middleware import errors
from queue_middleware.observability.metrics.catalog import Refusal

REASONS: dict[type[errors.QueueError], Refusal] = {
    errors.BadRequest: Refusal.BAD_REQUEST,
    errors.BodyTooSlow: Refusal.BAD_REQUEST,
    errors.CrossSite: Refusal.NOT_ALLOWED,
    errors.DatabaseGone: Refusal.BUSY,
    errors.DiskFull: Refusal.DISK,
    errors.Forbidden: Refusal.NOT_ALLOWED,
    errors.HeadersTooLarge: Refusal.TOO_LARGE,
    errors.IdempotencyKeyReused: Refusal.BAD_REQUEST,
    errors.InvalidWebhook: Refusal.BAD_REQUEST,
    errors.NotAllowed: Refusal.NOT_ALLOWED,
    errors.NotRunning: Refusal.STOPPING,
    errors.Outdated: Refusal.BUSY,
    errors.QueueFull: Refusal.FULL,
    errors.RateLimited: Refusal.TOO_MANY,
    errors.StoreBusy: Refusal.BUSY,
    errors.StoreError: Refusal.BUSY,
    errors.TooLarge: Refusal.TOO_LARGE,
    errors.TooManyQueued: Refusal.TOO_MANY,
    errors.Unauthorized: Refusal.UNAUTHORIZED,
    errors.UriTooLong: Refusal.TOO_LARGE,
}
"""The reason of each error. A subclass has the reason of its nearest base."""


def refusal_of(error: errors.QueueError) -> Refusal:
    """The reason of an error that is the response to a submission."""
    found = next((REASONS[kind] for kind in type(error).__mro__ if kind in REASONS), None)
    if found is not None:
        return found
    return Refusal.BAD_REQUEST if error.status < 500 else Refusal.BUSY
