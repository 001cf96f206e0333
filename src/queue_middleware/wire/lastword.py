"""What somebody outside says about his work: whether it is his last word, and whether it is a good one.

The test is the one by which polls are judged (AsyncQueue contract, "Provider polling"). Where a task names none, the words that
providers use decide; a body that says nothing of the kind is the result.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from queue_middleware.errors import BadRequest
from queue_middleware.models import PollConfig, Value

from .paths import look, text_of

_DONE = frozenset({"ok", "success", "successful", "succeeded", "completed", "complete", "done", "finished", "ready"})
_FAILED = frozenset(
    {"error", "errored", "failed", "failure", "canceled", "cancelled", "aborted", "expired", "timeout", "timed_out", "rejected"}
)
_UNDER_WAY = frozenset(
    {
        "queued", "in_queue", "pending", "submitted", "accepted", "created", "scheduled", "starting", "started", "start",
        "processing", "in_progress", "running", "working", "dreaming", "generating", "throttled", "output", "logs", "progress",
    }
)  # fmt: skip
_STATUS_PATHS = ("status", "state")
_ERROR_PATHS = ("error.message", "error", "detail", "failure_reason", "failure", "message")
_LONGEST = 1000


class Verdict(StrEnum):
    """What a word means for the job."""

    DONE = "done"
    FAILED = "failed"
    UNDER_WAY = "under_way"


class Word(Value, frozen=True):
    """What was said."""

    verdict: Verdict
    status: str | None
    """The word for where the work stands, as it was given."""
    error: str = ""
    """Why it failed, at most 1,000 characters."""


def read_word(body: bytes, config: PollConfig | None) -> Word:
    """Judge a JSON text. Raises `BadRequest` for what is none."""
    return judge_word(read_json(body), config)


def read_json(body: bytes) -> Any:
    """The value of a JSON text. Raises `BadRequest`."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("the body is not JSON") from None


def judge_word(value: Any, config: PollConfig | None) -> Word:
    """Judge a JSON value."""
    status = None if config is None else text_of(look(value, config.status_path))
    if config is not None and status in config.fail_values:
        return Word(Verdict.FAILED, status, _error(value, config, status))
    if config is not None and status in config.done_values:
        return Word(Verdict.DONE, status)
    if status is None:
        status = next((text for path in _STATUS_PATHS if (text := text_of(look(value, path))) is not None), None)
    word = "" if status is None else status.lower()
    if word in _FAILED:
        return Word(Verdict.FAILED, status, _error(value, config, status))
    # A task that says which words are the last ones takes every other for news.
    under_way = word in _UNDER_WAY or (config is not None and word not in _DONE)
    return Word(Verdict.UNDER_WAY if under_way else Verdict.DONE, status)


def _error(value: Any, config: PollConfig | None, status: str | None) -> str:
    paths = _ERROR_PATHS if config is None or config.error_path is None else (config.error_path, *_ERROR_PATHS)
    for path in paths:
        if text := text_of(look(value, path)):
            return text[:_LONGEST]
    return f"the provider says {status!r}"[:_LONGEST]
