"""Counts of jobs, webhooks and receivers, for operators."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .models import JobState
from .outcomes import Outcome
from .struct import Struct


class QueueCounts(Struct, frozen=True):
    """How many jobs, deliveries and receivers are in each state; states without any are left out."""

    jobs: Mapping[JobState, int]
    deliveries: Mapping[str, int]
    """By `webhooks.models.DeliveryState`."""
    receivers: Mapping[str, int] = msgspec.field(default_factory=dict)
    """By `webhooks.models.ReceiverHealth`."""
    outcomes: Mapping[Outcome, int] = msgspec.field(default_factory=dict)
    """How the stored requests ended: the completed, failed and cancelled ones of `jobs`, by outcome."""
