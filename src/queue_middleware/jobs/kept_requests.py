"""Which requests are kept after the end of their job, so that operators can submit them again."""

from __future__ import annotations

from enum import StrEnum

from .models import Failure, Headers, StoredResponse
from .outcomes import Outcome, outcome_of
from .struct import Struct


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


class KeepPolicy(Struct, frozen=True):
    """Which requests one process keeps, for how long, and without which headers."""

    mode: KeepRequests
    milliseconds: int
    """From the end of the job."""
    without: tuple[str, ...] = ()
    """Names in lower case; a `*` at the end of a name matches any rest."""

    def keeps(self, outcome: StoredResponse | Failure) -> bool:
        """Whether the request of a job with this outcome is kept."""
        return is_kept(self.mode, outcome)

    def is_left_out(self, name: bytes) -> bool:
        """Whether this header is not kept. `name` in lower case."""
        text = name.decode("latin-1")
        return any(text.startswith(left_out[:-1]) if left_out.endswith("*") else text == left_out for left_out in self.without)

    def kept_headers(self, headers: Headers) -> Headers:
        """The headers without those that are not kept."""
        return tuple(pair for pair in headers if not self.is_left_out(pair[0]))
