"""The definition of JSON, compared with the grammar of RFC 8259."""

from __future__ import annotations

import json
import random
import tracemalloc

import msgspec
import pytest

from queue_middleware.syntax.json_text import (
    LARGE_BYTES,
    MAX_SCANNED_BYTES,
    MISSING,
    Unparsable,
    _is_json,
    _split,
    embeddable,
    encode,
    parse_part,
    read_json,
    strip_bom,
)
from queue_middleware.tasks.polling.templates import read_path

MARK = b"\xef\xbb\xbf"
DEEP = b"[" * 100_000 + b"]" * 100_000
VALID = [
    b"1e400", b"-1e400", b"1" * 5000, b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\uD83D\\uDE00"', b"[" * 900 + b"]" * 900, DEEP,
    b'{"a":' * 30_000 + b"1" + b"}" * 30_000, MARK + b"{}", b'{"a":1,"a":2}', b" \t\r\n1 ", b"-0", b"1E+2", b'"\x7f"', b'"\\/"',
    b"null", b'{"\\ud800": 1e999, "b": [1, {"c": []}]}', '"\u00e4\U0001f600"'.encode(), b"[]", b"{}", b'[1, [], {}, "\\ud800"]',
]  # fmt: skip
INVALID = [
    b"", b" ", MARK, b"NaN", b"Infinity", b"-Infinity", b'"\x01"', b'"a\tb"', b'"\\x"', b"01", b"-", b"1.", b".5", b"2e",
    b"[1.e1]",
    b'"\xff"', b'{"a":1,}', b"[1,]", b"[,1]", b"[1 2]", b'{"a":}', b"{1:2}", b"tru", b"true1", b"0x1", b'"\\u12"', b'["\\ud8"]',
    b"'a'", b"// a\n1", b"\x0c1", b"1 2", b"]", b"[", b"{", b'"', b'{"a"}', b"[}", MARK + MARK + b"1", b"\xff\xfe1\x00",
    b"[" * 100_000, b"[" * 100_000 + b"]" * 99_999, b"[" * 100_000 + b"}" + b"]" * 99_999, b'"\\ud800', b'["\\ud800",]',
]  # fmt: skip


def is_json(text: bytes) -> bool:
    return _is_json(strip_bom(text))


@pytest.mark.parametrize("text", VALID, ids=range(len(VALID)))
def test_valid_json(text: bytes) -> None:
    assert is_json(text)
    assert read_json(text) is not MISSING
    assert read_json(b'{"a": ' + text.removeprefix(MARK) + b', "status": "OK"}') is not MISSING


@pytest.mark.parametrize("text", INVALID, ids=range(len(INVALID)))
def test_invalid_json(text: bytes) -> None:
    assert not is_json(text)
    assert read_json(text) is MISSING
    assert embeddable(text) is None


@pytest.mark.parametrize("text", VALID, ids=range(len(VALID)))
def test_parts_keep_their_text_and_other_members_are_read(text: bytes) -> None:
    part = text.removeprefix(MARK).strip()
    value = read_json(b'{"status": "OK", "output": ' + part + b', "list": [7]}')
    assert (read_path(value, "status"), read_path(value, "list.0")) == ("OK", 7)
    if isinstance(value["output"], msgspec.Raw):
        assert bytes(value["output"]) == part
        assert encode(value["output"]) == part


def test_values_that_python_cannot_represent() -> None:
    found = parse_part(read_json(b'{"a": 1e400}')["a"])
    assert isinstance(found, Unparsable)
    assert (str(found), encode(found)) == ("1e400", b"1e400")
    assert read_path(read_json(b'{"a": "\\ud800b"}'), "a") == "\ufffdb"
    assert read_path(read_json(b'{"\\ud800": 2, "b": 3}'), "\ufffd") == 2
    assert read_path(read_json(b'{"a": 1e400, "a": 2}'), "a") == 2


def test_json_that_can_be_embedded_in_other_text() -> None:
    plain = b'{"a": 1e400}'
    assert embeddable(plain) is plain
    assert embeddable(MARK + plain) == plain
    for text in (b"1" * 5000, b'"\\ud800"', b"[" * 500 + b"]" * 500):
        inside = embeddable(text)
        assert inside == text
        json.loads(b'{"payload": ' + inside + b"}", parse_int=len)
    assert embeddable(DEEP) is None
    assert embeddable(b'["\\ud800", ' + DEEP + b"]") is None


def test_the_scanner_agrees_with_the_fast_parser() -> None:
    """On random texts without lone surrogates, valid and invalid."""
    chance = random.Random(8259)
    pieces = ['"a"', '"\\n"', "1", "-2.5e3", "true", "null", "[", "]", "{", "}", ",", ":", " ", '"b": ', "0", "01", '"\t"']
    valid = 0
    for _ in range(20_000):
        text = "".join(chance.choices(pieces, k=chance.randrange(1, 9))).encode()
        if chance.random() < 0.5:
            text = json.dumps({"k": [1, {"x": ["y", None]}, "z" * chance.randrange(4)]}).encode()
            cut = chance.randrange(len(text))
            text = text[:cut] + chance.choice(pieces).encode() * chance.randrange(2) + text[cut + chance.randrange(2) :]
        members = _split(text)
        assert (members is not None) is is_json(text), text
        valid += members is not None
        if members and text.lstrip().startswith(b"{"):
            quick = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            assert {json.loads(name): value for name, value in members} == {name: bytes(raw) for name, raw in quick.items()}
    assert 2000 < valid < 18_000


def test_large_deeply_nested_text_is_refused_quickly() -> None:
    """RFC 8259 §9: a parser may set limits. Scanned token by token it would take many seconds."""
    assert not is_json(b"[" * MAX_SCANNED_BYTES + b"]" * MAX_SCANNED_BYTES)
    assert read_json(b'{"a": ' + b"[" * MAX_SCANNED_BYTES + b"]" * MAX_SCANNED_BYTES + b"}") is MISSING


def test_large_texts_are_read_one_level_at_a_time() -> None:
    text = b'{"rows": [' + b"1e400, " * LARGE_BYTES + b'0], "s": "\\ud800", "status": "OK"}'
    value = read_json(text)
    assert read_path(value, "status") == "OK"
    assert read_path(value, "s") == "\ufffd"
    assert str(read_path(value, "rows.0")) == "1e400"


def test_a_lone_surrogate_among_many_escapes_costs_no_memory():
    """Each escape used to be an object: half a gigabyte for a callback of 8 MiB."""
    text = b'{"half": "\\ud800", "pair": "\\ud83d\\ude00", "text": "' + b"\\n" * 10**6 + b'\\\\ud800"}'
    tracemalloc.start()
    try:
        read = read_json(text)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(text)
    finally:
        tracemalloc.stop()
    assert json.loads(bytes(read)) == {**json.loads(text), "half": "\ufffd"}
