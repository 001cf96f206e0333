"""`Prefer` as RFC 7240 defines it: what is read, what is ignored, and what is left for the application."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_middleware.web.preferences import MAX_WAIT, NONE, Preferences, read_preferences, without_queue_preferences


def read(*lines: bytes) -> Preferences:
    return read_preferences([(b"accept", b"*/*"), *((b"prefer", line) for line in lines)])


def forwarded(*lines: bytes) -> list[bytes]:
    headers = ((b"accept", b"wait=5"), *((b"prefer", line) for line in lines))
    first, *rest = without_queue_preferences(headers)
    assert first == headers[0]
    return [value for _, value in rest]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], NONE),
        ([b""], NONE),
        ([b" , ,, "], NONE),
        ([b"wait=5"], Preferences(5)),
        ([b"wait=0"], Preferences(0)),
        ([b"wait=007"], Preferences(7)),
        ([b"WAIT=5"], Preferences(5)),
        ([b"wait = \t5"], Preferences(5)),
        ([b'wait="5"'], Preferences(5)),
        ([b'wait="\\5"'], Preferences(5)),
        ([b"wait=60"], Preferences(60)),
        ([b"wait=61"], Preferences(60)),
        ([b"wait=" + b"9" * 10_000], Preferences(60)),
        ([b"wait=" + b"0" * 10_000], Preferences(0)),
        ([b"respond-async"], Preferences(None, True)),
        ([b'respond-async=""'], Preferences(None, True)),
        ([b"respond-async, wait=10"], Preferences(10, True)),
        ([b"respond-async", b"wait=10"], Preferences(10, True)),
        ([b"handling=lenient;strength=1;;x , wait=10; foo; some-parameter"], Preferences(10)),
        ([b'note="a, wait=3", wait=4'], Preferences(4)),
        ([b'note="a\\", wait=3", wait=4'], Preferences(4)),
        # The first of a name counts, even if it is of no use.
        ([b"wait=5, wait=6"], Preferences(5)),
        ([b"wait=5", b"wait=6"], Preferences(5)),
        ([b"wait=soon, wait=6"], NONE),
        # Malformed: ignored, without effect on the others.
        ([b"wait"], NONE),
        ([b"wait="], NONE),
        ([b'wait=""'], NONE),
        ([b"wait=-1"], NONE),
        ([b"wait=1.5"], NONE),
        ([b"wait=5s"], NONE),
        ([b"wait=5 6"], NONE),
        ([b"wait=\xb2"], NONE),
        ([b"wait:5"], NONE),
        ([b'wait="5'], NONE),
        ([b'"wait"=5, respond-async'], Preferences(None, True)),
        ([b'unclosed="', b"wait=5"], Preferences(5)),
        ([b"=5, wait=4"], Preferences(4)),
    ],
)
def test_reading(lines: list[bytes], expected: Preferences) -> None:
    assert read(*lines) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], []),
        ([b"wait=5"], []),
        ([b"respond-async, Wait=5"], []),
        ([b"wait=soon"], []),
        ([b"handling=lenient ,  return=minimal"], [b"handling=lenient ,  return=minimal"]),
        ([b"handling=lenient ,  wait=4;x"], [b"handling=lenient"]),
        ([b'wait=4, note="a, wait=3" ;p=1,return=minimal'], [b'note="a, wait=3" ;p=1, return=minimal']),
        ([b"wait=4", b"handling=lenient"], [b"handling=lenient"]),
        ([b"waiting=4, wait/5"], [b"waiting=4, wait/5"]),
        ([b""], [b""]),
    ],
)
def test_other_preferences_are_left_for_the_application(lines: list[bytes], expected: list[bytes]) -> None:
    assert forwarded(*lines) == expected


TOKENS = st.text("abcXYZ019!#$%&'*+.^_`|~-", min_size=1, max_size=8).map(str.encode)
QUOTED = st.binary(max_size=8).map(lambda data: b'"' + data.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"')
WHITESPACE = st.text(" \t", max_size=3).map(str.encode)


@st.composite
def pairs(draw: st.DrawFn, name: bytes | None = None) -> bytes:
    written = draw(TOKENS) if name is None else name
    if draw(st.booleans()):
        return written
    return written + draw(WHITESPACE) + b"=" + draw(WHITESPACE) + draw(TOKENS | QUOTED)


@st.composite
def preferences(draw: st.DrawFn) -> bytes:
    """A valid preference of a name that the queue does not know."""
    parts = [draw(pairs()) if draw(st.booleans()) else draw(pairs(b"note"))]
    parts += draw(st.lists(pairs(), max_size=3))
    text = parts[0]
    for part in parts[1:]:
        text += draw(WHITESPACE) + b";" + draw(WHITESPACE) + part
    return b"x-" + text


@given(st.lists(preferences(), max_size=4), st.lists(preferences(), max_size=4), st.integers(0, 10**6))
def test_a_preference_is_found_among_others(before: list[bytes], after: list[bytes], seconds: int) -> None:
    line = b", ".join([*before, b"wait=%d" % seconds, *after])
    assert read(line) == Preferences(min(seconds, MAX_WAIT))
    assert forwarded(line) == ([b", ".join([*before, *after])] if before or after else [])


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_nothing_is_refused(lines: list[bytes]) -> None:
    read(*lines)
    left = forwarded(*lines)
    assert read(*left) == NONE
    assert forwarded(*left) == left


@given(st.lists(st.sampled_from([b"wait", b"=", b"5", b'"', b"\\", b",", b";", b" ", b"respond-async", b"x"]), max_size=24))
def test_what_is_forwarded_holds_no_preference_of_the_queue(pieces: list[bytes]) -> None:
    line = b"".join(pieces)
    left = forwarded(line)
    assert read(*left) == NONE
    if read(line) == NONE and b"wait" not in line and b"respond-async" not in line:
        assert left == [line]


@pytest.mark.parametrize("piece", [b'"', b"\\", b'"\\', b";", b"; ", b"= ", b" ", b"a;", b'";="', b",", b"wait=5;", b'a="b",'])
def test_long_values_take_one_pass(piece: bytes) -> None:
    """With backtracking, these would take longer than any test may."""
    line = piece * 100_000 + b"\x01"
    read(line)
    assert read(*forwarded(line)) == NONE
