"""Builds log lines: fal's levels, and texts that are bounded and can be stored, whatever objects are logged."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from .models import Progress
from .outcomes import LossReason
from .struct import Struct

MAX_MESSAGE_LENGTH = 8 * 1024
"""Characters of one line, traceback included; the middle of a longer one is left out."""
MAX_LABELS = 16
MAX_LABEL_LENGTH = 256
"""Characters of one label, and of the name of a stage."""


class LogLevel(StrEnum):
    """fal's words for how serious a line is (fal queue contract, section 3). `STDOUT` and `STDERR` are for raw output."""

    STDERR = "STDERR"
    STDOUT = "STDOUT"
    ERROR = "ERROR"
    INFO = "INFO"
    WARN = "WARN"
    DEBUG = "DEBUG"


class LogLine(Struct, frozen=True):
    """One log line of a request."""

    at: int
    """Microseconds since 1970, UTC: a millisecond holds many lines."""
    level: LogLevel
    message: str
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    source: str = "USER"
    """The origin of the line; fal's clients know only `USER`."""
    number: int = 0
    """1 for the first line of the request, and rising over all its attempts; given by the store."""


LEVELS_BY_NAME: dict[str, LogLevel] = {
    **{level.value: level for level in LogLevel},
    "WARNING": LogLevel.WARN,
    "CRITICAL": LogLevel.ERROR,
    "FATAL": LogLevel.ERROR,
}
"""fal's levels, and the names of Python's `logging` that differ from them."""


def read_level(level: str | int) -> LogLevel:
    """The level for a name of `LEVELS_BY_NAME`, in any case, or for a number of `logging`. Raises `ValueError`."""
    if isinstance(level, int):
        return level_for_number(level)
    known = LEVELS_BY_NAME.get(level.upper()) if isinstance(level, str) else None
    if known is None:
        raise ValueError(f"level is {level!r}; it must be one of {', '.join(LEVELS_BY_NAME)}")
    return known


def level_for_number(number: int) -> LogLevel:
    """Return fal's level for a number of `logging`, where 20 is INFO."""
    if number >= 30:
        return LogLevel.ERROR if number >= 40 else LogLevel.WARN
    return LogLevel.INFO if number >= 20 else LogLevel.DEBUG


def make_line(at: int, level: LogLevel, message: object, labels: Mapping[str, object]) -> LogLine:
    """A line that can be stored. Never raises, whatever the texts of the objects do."""
    few = (
        {to_text(name, MAX_LABEL_LENGTH): to_text(value, MAX_LABEL_LENGTH) for name, value in list(labels.items())[:MAX_LABELS]}
        if labels
        else {}
    )
    return LogLine(at, level, to_text(message, MAX_MESSAGE_LENGTH), few)


def progress_line(at: int, progress: Progress) -> LogLine:
    """The line for a progress report, e.g. `40% upscaling`."""
    message = f"{progress.fraction:.0%} {progress.stage or ''}".rstrip()
    return LogLine(at, LogLevel.INFO, message, {"progress": f"{progress.fraction:g}"})


def dropped_line(at: int, dropped: int, lines: int, size: int) -> LogLine:
    """The last line of a log that grew too long."""
    message = f"{dropped} more lines were dropped: one attempt keeps at most {lines} lines and {size} bytes"
    return LogLine(at, LogLevel.WARN, message)


LOSSES: dict[LossReason, str] = {
    LossReason.PROCESS_DIED: "was lost: the process that ran it died",
    LossReason.LEASE_EXPIRED: "was lost: the process that ran it did not answer",
    LossReason.EXIT: "ended the process that ran it",
}


def loss_line(at: int, attempt: int, most: int, loss: LossReason, delay: float) -> LogLine:
    """The line for a request that lost its process and is retried; `at` in milliseconds, `delay` in seconds."""
    return _again_line(at, attempt, f"attempt {attempt} of {most} {LOSSES[loss]}; next attempt in {_seconds(delay)} or later")


def retry_line(at: int, attempt: int, most: int, reason: str, delay: float) -> LogLine:
    """The line for a failed attempt that is retried; `at` in milliseconds, `delay` in seconds."""
    reason = to_text(reason, MAX_LABEL_LENGTH)
    return _again_line(at, attempt, f"attempt {attempt} of {most} {reason}; next attempt in {_seconds(delay)}")


def release_line(at: int, attempt: int, *, charged: bool) -> LogLine:
    """The line for a request whose process was shut down during its attempt."""
    counts = "it counts, because this has happened too often" if charged else "it does not count"
    return _again_line(
        at, attempt, f"attempt {attempt} was stopped by the end of its process; {counts}, and the request is run again"
    )


def _again_line(at: int, attempt: int, message: str) -> LogLine:
    return LogLine(at * 1000, LogLevel.WARN, message, {"attempt": str(attempt)})


def _seconds(delay: float) -> str:
    return f"{delay:.0f} s" if delay >= 10 else f"{delay:.1f}".removesuffix(".0") + " s"


def line_size(line: LogLine) -> int:
    """Bytes of the message and of all labels."""
    return _bytes(line.message) + sum([_bytes(name) + _bytes(value) for name, value in line.labels.items()])


def to_text(value: object, most: int) -> str:
    """The text of `value` as valid Unicode: at most `most` characters, and a remark about those that are left out."""
    try:
        # Plain: the text of a subclass of str may be itself (Django's SafeString), which cannot be stored.
        text = value if type(value) is str else str.__str__(str(value))
        if len(text) > most:
            half = most // 2
            text = f"{text[:half]} … [{len(text) - 2 * half} characters left out] … {text[-half:]}"
        return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
    except Exception as error:
        return f"[{type(value).__name__} has no text: {type(error).__name__}]"


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
