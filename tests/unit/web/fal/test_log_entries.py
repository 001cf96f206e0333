from __future__ import annotations

import json

import pytest

from queue_middleware.jobs.log_lines import LogLevel, LogLine
from queue_middleware.web.fal.logs import entries_json, timestamp

AT = 1_734_709_037_120_314


def test_an_entry_has_fals_format() -> None:
    assert json.loads(f"[{entries_json([LogLine(AT, LogLevel.WARN, 'low on ink', {'step': '3'})])}]") == [
        {
            "message": "low on ink",
            "timestamp": "2024-12-20T15:37:17.120314",
            "level": "WARN",
            "source": "USER",
            "labels": {"level": "WARN", "source": "USER", "step": "3"},
        }
    ]


def test_no_lines_are_no_entries() -> None:
    assert entries_json([]) == ""


def test_nothing_in_a_line_can_break_the_json_and_all_is_ascii() -> None:
    nasty = 'Grüße "\\\n\x00\u2028\N{SNOWMAN}'
    text = entries_json([LogLine(AT, LogLevel.INFO, nasty, {nasty: nasty}, source=nasty)] * 2)
    assert text.isascii()
    assert "\n" not in text
    entries = json.loads(f"[{text}]")
    assert [(entry["message"], entry["labels"][nasty], entry["source"]) for entry in entries] == [(nasty, nasty, nasty)] * 2


def test_labels_of_the_handler_do_not_hide_level_and_source() -> None:
    entry = json.loads(entries_json([LogLine(AT, LogLevel.ERROR, "x", {"level": "mine", "source": "mine", "other": "mine"})]))
    assert entry["labels"] == {"level": "ERROR", "source": "USER", "other": "mine"}


@pytest.mark.parametrize(
    ("at", "written"),
    [(0, "1970-01-01T00:00:00.000000"), (AT, "2024-12-20T15:37:17.120314"), (AT - 314, "2024-12-20T15:37:17.120000")],
)
def test_timestamps_always_have_six_digits(at: int, written: str) -> None:
    assert timestamp(at) == written
