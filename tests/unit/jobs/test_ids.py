from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_middleware.errors import BadRequest
from queue_middleware.jobs.ids import SEQUENCE_BITS, format_request_id, make_random_parts, parse_request_id

KEYS = st.integers(0, 2**48 - 1).flatmap(lambda ms: st.integers(0, 2**SEQUENCE_BITS - 1).map(lambda n: ms << SEQUENCE_BITS | n))


@given(KEYS, st.binary(min_size=10, max_size=10))
def test_an_id_contains_its_millisecond_and_its_random_part(key: int, random: bytes) -> None:
    tail = make_random_parts(random)
    first, found = parse_request_id(format_request_id(key, tail))
    assert (first, found) == (key >> SEQUENCE_BITS << SEQUENCE_BITS, tail)
    assert first <= key <= first | (1 << SEQUENCE_BITS) - 1


@given(KEYS, st.binary(min_size=10, max_size=10))
def test_an_id_is_a_uuid_of_version_7(key: int, random: bytes) -> None:
    uuid = UUID(format_request_id(key, make_random_parts(random)))
    assert (uuid.version, uuid.variant, uuid.int >> 80) == (7, "specified in RFC 4122", key >> SEQUENCE_BITS)


def test_74_bits_are_random() -> None:
    ones, zeros = make_random_parts(b"\xff" * 10), make_random_parts(b"\x00" * 10)
    assert (int.from_bytes(ones) ^ int.from_bytes(zeros)).bit_count() == 74


@given(st.integers(0, 5).flatmap(lambda count: st.binary(min_size=10 * count, max_size=10 * count)))
def test_several_random_parts_are_those_of_each(random: bytes) -> None:
    each = [make_random_parts(random[start : start + 10]) for start in range(0, len(random), 10)]
    assert make_random_parts(random) == b"".join(each)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1",
        "0192f0c0000070008000000000000000",
        "0192f0c0-0000-7000-8000-00000000000",
        "0192f0c0-0000-7000-8000-000000000000 ",
        "g192f0c0-0000-7000-8000-000000000000",
        "{0192f0c0-0000-7000-8000-000000000000}",
        "\u0661192f0c0-0000-7000-8000-000000000000",
    ],
)
def test_what_is_not_a_uuid_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="is not a UUID"):
        parse_request_id(text)
