"""Which requests are kept after the end of their job, so that operators can submit them again."""

from __future__ import annotations

from enum import StrEnum

from .models import Failure, StoredResponse
from .outcomes import Outcome, outcome_of


class KeepRequests(StrEnum):
    """The values of the option `keep_requests`."""

    NONE = "none"
    FAILED = "failed"
    """Those that ended without a response, or with a status from 500; not those that were cancelled."""
    ALL = "all"


_FAILED = frozenset({Outcome.FAILED, Outcome.SERVER_ERROR})


def is_kept(mode: KeepRequests, outcome: StoredResponse | Failure) -> bool:
    """Whether the request of a job with this outcome is kept."""
    if mode is not KeepRequests.FAILED:
        return mode is KeepRequests.ALL
    ended = (None, outcome.error_type) if isinstance(outcome, Failure) else (outcome.status, None)
    return outcome_of(*ended) in _FAILED
