"""The rule for positions in the queue. Stores keep them as counts per time range; the conformance suite compares."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from .models import JobState


class Place(NamedTuple):
    """What decides the position of one job."""

    priority: int
    """Smaller goes first."""
    key: int
    """In the order of submission."""
    state: JobState


def position(job: Place, jobs: Collection[Place]) -> int | None:
    """How many queued jobs will be claimed before this one; None for a job that is neither queued nor delayed.

    A delayed job keeps the place of its submission: it has a position, but until it is queued again no other job is
    counted behind it. Running, awaiting and ended jobs count for nothing.
    """
    if job.state not in (JobState.QUEUED, JobState.DELAYED):
        return None
    return sum(other.state is JobState.QUEUED and other[:2] < job[:2] for other in jobs)
