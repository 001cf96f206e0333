from __future__ import annotations

import pytest

from queue_middleware.web.fal.event_ids import ResumePoint, id_field, read_resume_point

ACCEPT = (b"accept", b"text/event-stream")
EVENT_SOURCE = (ACCEPT, (b"cache-control", b"no-cache"))


@pytest.mark.parametrize(
    ("headers", "resume"),
    [
        ((), ResumePoint()),
        ((ACCEPT,), ResumePoint()),  # fal-js
        ((ACCEPT, (b"cache-control", b"no-store")), ResumePoint()),  # httpx-sse
        (((b"accept", b"*/*"), (b"cache-control", b"no-cache")), ResumePoint()),
        (EVENT_SOURCE, ResumePoint(wants_ids=True)),
        (((b"last-event-id", b"12"),), ResumePoint(12, wants_ids=True)),
        ((*EVENT_SOURCE, (b"last-event-id", b"12.end")), ResumePoint(12, ended=True, wants_ids=True)),
        (((b"last-event-id", b"0"),), ResumePoint(0, wants_ids=True)),
    ],
)
def test_last_event_ids_are_read(headers: tuple[tuple[bytes, bytes], ...], resume: ResumePoint) -> None:
    assert read_resume_point(headers) == resume


@pytest.mark.parametrize(
    "last", [b"", b"-1", b"x", b"1.5", b"12.END", b" 12", b"9" * 16, b"9" * 10**6, b"12.end.end", b"\xc2\xb2"]
)
def test_foreign_event_ids_are_ignored(last: bytes) -> None:
    assert read_resume_point(((b"last-event-id", last),)) == ResumePoint(wants_ids=True)


@pytest.mark.parametrize(("line", "end"), [(0, False), (0, True), (10_000, False), (10_000, True)])
def test_ids_survive_a_round_trip(line: int, end: bool) -> None:
    field = id_field(line, end=end)
    assert field.startswith(b"id: ")
    assert field.endswith(b"\n")
    assert read_resume_point(((b"last-event-id", field[4:-1]),)) == ResumePoint(line, ended=end, wants_ids=True)
