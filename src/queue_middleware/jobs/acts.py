"""What operators change in a copy of a request, and what became of an act on many requests."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from queue_middleware.errors import BadRequest, QueueError

from .models import Headers, NewJob
from .struct import Struct

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OF_THE_BODY = frozenset({"content-length", "transfer-encoding"})


class ActReport(Struct, frozen=True):
    """What became of an act on all requests that a filter selects."""

    selected: int
    """Requests that the filter selected, and that were in a state in which the act is possible."""
    done: int
    """Requests that were changed or copied."""
    left_out: Mapping[str, int] = msgspec.field(default_factory=dict)
    """How many were not, by the reason: the name of an error such as `NotKept`, or `changed` for another state meanwhile."""
    copies: Mapping[str, str] = msgspec.field(default_factory=dict)
    """The id of each request that was copied, and that of its copy."""
    ended_by: QueueError | None = None
    """The error of the database that ended the act before all requests were reached. They are in `left_out`, under its name."""


class Changes(Struct, frozen=True):
    """What is different in a copy of a request."""

    body: bytes | None = None
    """None: the same body."""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Headers that replace those with the same names."""
    webhook: str | msgspec.UnsetType | None = msgspec.UNSET
    """The URL as it is stored, or None for a copy without a webhook; unset: that of the original."""

    def apply(self, job: NewJob) -> NewJob:
        """The job with these changes. Raises `BadRequest` for headers that cannot be sent."""
        given = _checked(self.headers)
        names = {name for name, _ in given}
        headers = (*(pair for pair in job.request.headers if pair[0] not in names), *given)
        body = job.request.body if self.body is None else self.body
        job = job.replace(request=job.request.replace(headers=headers, body=body))
        if self.webhook is msgspec.UNSET:
            return job
        return job.replace(webhook=self.webhook, webhook_kinds=job.webhook_kinds if self.webhook else ())


def _checked(headers: Mapping[str, str]) -> Headers:
    for name, value in headers.items():
        if not _NAME.fullmatch(name.lower()) or name.lower() in _OF_THE_BODY:
            raise BadRequest(f"{name[:64]!r} is not a header that can be set")
        if not _VALUE.fullmatch(value):
            raise BadRequest(f"the value of the header {name} contains a character that cannot be sent")
    return tuple((name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers.items())
