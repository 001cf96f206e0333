from __future__ import annotations

import logging

import pytest

from queue_middleware.jobs.log_lines import (
    LEVELS_BY_NAME,
    MAX_LABEL_LENGTH,
    MAX_LABELS,
    MAX_MESSAGE_LENGTH,
    LogLevel,
    LogLine,
    dropped_line,
    level_for_number,
    line_size,
    make_line,
    progress_line,
    read_level,
    to_text,
)
from queue_middleware.jobs.models import Progress

AT = 1_734_709_037_120_314


def test_the_limits_are_the_documented_ones() -> None:
    assert (MAX_MESSAGE_LENGTH, MAX_LABELS, MAX_LABEL_LENGTH) == (8192, 16, 256)


class Unprintable:
    """An object whose `__str__` raises."""

    def __str__(self) -> str:
        raise LookupError("no text")


@pytest.mark.parametrize(
    ("number", "level"),
    [
        (logging.NOTSET, LogLevel.DEBUG),
        (5, LogLevel.DEBUG),
        (logging.DEBUG, LogLevel.DEBUG),
        (19, LogLevel.DEBUG),
        (logging.INFO, LogLevel.INFO),
        (25, LogLevel.INFO),
        (logging.WARNING, LogLevel.WARN),
        (logging.ERROR, LogLevel.ERROR),
        (logging.CRITICAL, LogLevel.ERROR),
        (99, LogLevel.ERROR),
    ],
)
def test_every_level_of_logging_maps_to_a_level_of_fal(number: int, level: LogLevel) -> None:
    assert level_for_number(number) is read_level(number) is level


@pytest.mark.parametrize("level", LEVELS_BY_NAME)
def test_a_level_is_read_in_any_case(level: str) -> None:
    assert read_level(level) is read_level(level.lower()) is LEVELS_BY_NAME[level]


@pytest.mark.parametrize("level", ["", "LOUD", None, b"INFO"])
def test_an_unknown_level_is_refused_with_the_valid_ones(level: object) -> None:
    with pytest.raises(
        ValueError, match=r"it must be one of STDERR, STDOUT, ERROR, INFO, WARN, DEBUG, WARNING, CRITICAL, FATAL"
    ):
        read_level(level)  # type: ignore[arg-type]


def test_a_line_accepts_any_object() -> None:
    line = make_line(AT, LogLevel.INFO, ValueError("x"), {"step": 3, "share": 0.5, "who": None})
    assert line == LogLine(AT, LogLevel.INFO, "x", {"step": "3", "share": "0.5", "who": "None"})


def test_an_object_whose_str_raises_does_not_raise() -> None:
    line = make_line(AT, LogLevel.INFO, Unprintable(), {"mute": Unprintable()})
    assert line.message == line.labels["mute"] == "[Unprintable has no text: LookupError]"


class Safe(str):
    """Like Django's `SafeString`: a subclass whose text is itself."""

    def __str__(self) -> str:
        return self


def test_a_string_subclass_becomes_a_plain_string() -> None:
    line = make_line(AT, LogLevel.INFO, Safe("x"), {Safe("who"): Safe("me")})
    texts = [line.message, *line.labels.keys(), *line.labels.values()]
    assert [(type(text), text) for text in texts] == [(str, "x"), (str, "who"), (str, "me")]


def test_surrogates_can_be_stored() -> None:
    assert to_text("caf\udce9 \N{SNOWMAN}", 100) == "caf\\udce9 \N{SNOWMAN}"


@pytest.mark.parametrize("length", [MAX_MESSAGE_LENGTH, MAX_MESSAGE_LENGTH + 1, 10 * MAX_MESSAGE_LENGTH])
def test_a_long_message_keeps_its_beginning_and_end(length: int) -> None:
    text = "begin" + "x" * (length - 8) + "end"
    message = make_line(AT, LogLevel.INFO, text, {}).message
    if length == MAX_MESSAGE_LENGTH:
        assert message == text
    else:
        assert message.startswith("beginx")
        assert message.endswith("xend")
        assert f" … [{length - MAX_MESSAGE_LENGTH} characters left out] … " in message
        assert len(message) < MAX_MESSAGE_LENGTH + 50


def test_labels_are_limited_in_number_and_length() -> None:
    labels = make_line(AT, LogLevel.INFO, "", {f"{n} {'x' * 1000}": "y" * 1000 for n in range(100)}).labels
    assert len(labels) == MAX_LABELS
    assert all(len(text) < MAX_LABEL_LENGTH + 50 for pair in labels.items() for text in pair)


@pytest.mark.parametrize(
    ("progress", "message"),
    [(Progress(0.4, "upscaling"), "40% upscaling"), (Progress(1.0), "100%"), (Progress(0.0, ""), "0%")],
)
def test_the_message_of_a_progress_report(progress: Progress, message: str) -> None:
    assert progress_line(AT, progress).message == message
    assert progress_line(AT, progress).labels == {"progress": f"{progress.fraction:g}"}


def test_the_last_line_has_the_number_of_dropped_lines() -> None:
    line = dropped_line(AT, 7, 10, 2048)
    assert line.level is LogLevel.WARN
    assert line.message == "7 more lines were dropped: one attempt keeps at most 10 lines and 2048 bytes"


def test_size_is_in_bytes() -> None:
    assert line_size(LogLine(AT, LogLevel.INFO, "\N{SNOWMAN}x", {"ä": "b"})) == 4 + 3
