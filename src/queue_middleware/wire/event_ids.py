"""Ids of the events of a status stream, and what a client that comes again has heard (HTML standard, "Server-sent events").

fal's events have no ids, and common libraries mistake every comment for an event once there was one: httpx-sse does. So only
clients get ids that come again by themselves: the `EventSource` of browsers, and those that send `Last-Event-ID`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from queue_middleware.value import Value

_ID = re.compile(rb"([0-9]{1,15})(\.end)?")


class Heard(Value, frozen=True):
    """What a client says of the stream that it had before."""

    line: int = 0
    """The number of the last log line."""
    end: bool = False
    """Whether it has heard the last event."""
    wants_ids: bool = False


def read_heard(headers: Iterable[tuple[bytes, bytes]]) -> Heard:
    """From the headers of a request, names in lower case. An id that is none of ours says nothing."""
    said = {name: value for name, value in headers if name in (b"last-event-id", b"accept", b"cache-control")}
    if (last := said.get(b"last-event-id")) is not None:
        match = _ID.fullmatch(last)
        return Heard(int(match[1]), match[2] is not None, wants_ids=True) if match else Heard(wants_ids=True)
    # With both, as the standard has it for `EventSource`, which fetches with the cache mode "no-store".
    is_event_source = said.get(b"accept") == b"text/event-stream" and said.get(b"cache-control") == b"no-cache"
    return Heard(wants_ids=is_event_source)


def id_field(line: int, *, end: bool) -> bytes:
    """The line that gives an event its id. `line`: number of the last log line up to there, 0 for none."""
    return b"id: %d.end\n" % line if end else b"id: %d\n" % line
