"""Reading idempotency keys, and fingerprints of requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_middleware.errors import BadRequest
from queue_middleware.jobs.idempotency import MAX_LENGTH, IdempotencyKey, fingerprint, read_key

VISIBLE = [chr(code) for code in range(0x21, 0x7F)]


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"abc", "abc"),
        (b'"abc"', "abc"),
        (b' "abc" ', "abc"),
        (b"\tabc ", "abc"),
        (b"8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b"a/b+c==", "a/b+c=="),
        (rb'"a\"b\\c"', 'a"b\\c'),
        (b'"a,b;c"', "a,b;c"),
        (b"x" * MAX_LENGTH, "x" * MAX_LENGTH),
        (b'"' + b"x" * MAX_LENGTH + b'"', "x" * MAX_LENGTH),
    ],
)
def test_keys_with_and_without_quotes(value: bytes, key: str) -> None:
    assert read_key([value]) == key


def test_without_the_header_there_is_no_key() -> None:
    assert read_key([]) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b'""',
        b'"',
        b'"abc',
        b'abc"',
        b'a"b',
        rb"a\b",
        rb'"a\b"',
        b"a b",
        b'"a b"',
        b"a, b",
        b"a,b",
        b'"a", "b"',
        b'"a";p=1',
        b"a;p=1",
        "k\u00e9y".encode("latin-1"),
        "k\u00e9y".encode(),
        b"a\x00b",
        b"a\nb",
        b"abc\n",
        b'"abc"\n',
        b"a\x7f",
        b"x" * (MAX_LENGTH + 1),
        b'"' + b"x" * (MAX_LENGTH + 1) + b'"',
        b"x" * 10_000,
    ],
)
def test_malformed_keys_are_refused_with_the_value_and_the_remedy(value: bytes) -> None:
    with pytest.raises(BadRequest, match=r"Idempotency-Key is .*; expected 1 to 255 visible ASCII characters") as refusal:
        read_key([value])
    assert len(refusal.value.detail) < 400


def test_two_headers_are_refused_even_if_they_are_equal() -> None:
    with pytest.raises(BadRequest, match="given 2 times; send one key"):
        read_key([b"a", b"a"])


@given(st.text(VISIBLE, min_size=1, max_size=MAX_LENGTH))
def test_every_key_of_visible_characters_can_be_sent_in_quotes(key: str) -> None:
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    assert read_key([f'"{escaped}"'.encode()]) == key


@given(st.text([char for char in VISIBLE if char not in '",;\\'], min_size=1, max_size=MAX_LENGTH))
def test_a_key_is_the_same_with_and_without_quotes(key: str) -> None:
    assert read_key([key.encode()]) == read_key([f'"{key}"'.encode()]) == key


@given(st.binary(max_size=300))
def test_any_value_is_a_key_or_is_refused(value: bytes) -> None:
    try:
        key = read_key([value])
    except BadRequest:
        return
    assert key is not None
    assert 1 <= len(key) <= MAX_LENGTH
    assert set(key) <= set(VISIBLE)


PARTS = st.lists(st.binary(max_size=20), max_size=6)


@given(PARTS, PARTS)
def test_fingerprints_are_equal_exactly_for_equal_lists_of_parts(one: list[bytes], other: list[bytes]) -> None:
    assert (fingerprint(one) == fingerprint(other)) is (one == other)


@given(st.binary(max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_bytes_that_move_to_the_next_part_change_the_fingerprint(data: bytes, first: int, second: int) -> None:
    one, other = fingerprint([data[:first], data[first:]]), fingerprint([data[:second], data[second:]])
    assert (one == other) is (data[:first] == data[:second])


def test_a_fingerprint_stays_the_same_over_releases() -> None:
    """It is stored: a client may repeat a request after an upgrade."""
    assert fingerprint([b"POST", b"/generate", b"", b"{}"]).hex() == "09bc085deea9612a48053ad937f0b478"


def test_the_repr_shows_no_part_of_the_key() -> None:
    assert repr(IdempotencyKey("client", "key", b"x" * 16)) == (
        "IdempotencyKey(scope=<hidden>, key=<hidden>, fingerprint=<16 bytes>)"
    )
