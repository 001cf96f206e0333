"""Event ids of a status stream, and where a reconnecting client resumes (HTML standard, "Server-sent events").

fal's events have no ids, and after an id common libraries, such as httpx-sse, mistake every comment for an event. Ids are
therefore sent only to clients that reconnect by themselves: `EventSource` of browsers, and those that send `Last-Event-ID`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from queue_middleware.jobs.struct import Struct

_ID = re.compile(rb"([0-9]{1,15})(\.end)?")


class ResumePoint(Struct, frozen=True):
    """Where a client resumes a stream that it received before."""

    line: int = 0
    """Number of the last log line that the client received."""
    ended: bool = False
    """Whether the client has received the last event."""
    wants_ids: bool = False


def read_resume_point(headers: Iterable[tuple[bytes, bytes]]) -> ResumePoint:
    """Read the headers of a request, names in lower case. An unknown form of id is ignored."""
    values = {name: value for name, value in headers if name in (b"last-event-id", b"accept", b"cache-control")}
    if (last := values.get(b"last-event-id")) is not None:
        match = _ID.fullmatch(last)
        return ResumePoint(int(match[1]), match[2] is not None, wants_ids=True) if match else ResumePoint(wants_ids=True)
    # Both headers are required by the standard for `EventSource`, which fetches with the cache mode "no-store".
    is_event_source = values.get(b"accept") == b"text/event-stream" and values.get(b"cache-control") == b"no-cache"
    return ResumePoint(wants_ids=is_event_source)


def id_field(line: int, *, end: bool) -> bytes:
    """The line that gives an event its id. `line`: number of the last log line up to there, 0 for none."""
    return b"id: %d.end\n" % line if end else b"id: %d\n" % line
