"""Reading a few members of large JSON."""

from __future__ import annotations

import json

import msgspec
import pytest

from queue_middleware.syntax import partial_json as module
from queue_middleware.syntax.json_text import LARGE_BYTES, MISSING, read_json
from queue_middleware.syntax.partial_json import read_element, read_members
from queue_middleware.tasks.polling.providers import detect_provider
from queue_middleware.tasks.polling.templates import members, read_path

PADDING = "x" * (LARGE_BYTES + 1)


def raw(value: object) -> msgspec.Raw:
    return msgspec.json.decode(json.dumps(value).encode(), type=msgspec.Raw)


def test_the_last_of_two_members_with_one_name_is_used() -> None:
    found = read_members(msgspec.json.decode(b'{"a": 1, "b": 2, "a": 3}', type=msgspec.Raw), ("a", "c", "b"))
    assert {name: bytes(value) for name, value in found.items()} == {"a": b"3", "b": b"2"}


def test_null_is_a_value() -> None:
    large = read_json(json.dumps({"a": None, "padding": PADDING}).encode())
    assert read_path(large, "a") is None
    assert read_path(large, "b") is MISSING


@pytest.mark.parametrize("position", [0, 1, 255, 256, 999])
def test_positions_near_and_far(position: int) -> None:
    found = read_element(raw(list(range(1000))), position)
    assert found is not None
    assert bytes(found) == b"%d" % position


def test_a_position_after_the_end_has_no_value() -> None:
    assert read_element(raw([1]), 1) is None
    assert read_element(raw(list(range(300))), 300) is None


def test_far_positions_of_a_long_list_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_COMMAS", 500)
    assert read_element(raw(list(range(1000))), 900) is None
    assert read_element(raw(list(range(1000))), 9) is not None


def test_only_the_requested_members_of_a_large_object_are_decoded() -> None:
    body = json.dumps({"status": "OK", "rest": {f"k{number}": number for number in range(30_000)}}).encode()
    value = read_json(body)
    assert isinstance(value, msgspec.Raw)
    assert isinstance(read_path(value, "rest"), msgspec.Raw)
    assert members(value, ("status", "other")) == {"status": "OK"}
    assert members(read_json(b'{"status": "OK", "more": 1}'), ("status", "other")) == {"status": "OK"}
    assert members(read_json(b"[]"), ("status",)) is None
    assert members(read_json(b"[" + b"1," * LARGE_BYTES + b"1]"), ("status",)) is None


def test_a_provider_is_recognized_by_a_large_payload_too() -> None:
    payload = {"id": "1", "input": {"prompt": PADDING}, "status": "processing", "created_at": "now"}
    small, large = detect_provider({**payload, "input": {}}), detect_provider(read_json(json.dumps(payload).encode()))
    assert small is not None
    assert small is large
