"""Waits before the next attempt, and the parsing of durations."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime

from .errors import SettingsError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_EXPONENT = 64
_LONGEST_RETRY_AFTER = 86400.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")


def parse_duration(text: str) -> float:
    """Seconds of `"20"`, `"5s"`, `"30m"`, `"2h"`, `"7d"` or `"250ms"`. Raises `SettingsError`."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise SettingsError(f"{text!r} is not a duration; write a number with ms, s, m, h or d, e.g. '30s'")
    return float(match[1]) * _UNITS[match[2] or "s"]


def parse_schedule(text: str) -> tuple[float, ...]:
    """Waits in seconds of `"5s, 5m, 30m"`. An empty text means a single attempt. Raises `SettingsError`."""
    return tuple(parse_duration(part) for part in text.split(",") if part.strip())


def scheduled(schedule: tuple[float, ...], attempt: int, jitter: float = 0.2) -> float | None:
    """Seconds from attempt number `attempt` (1 is the first) to the next, ± `jitter`; None if there is no next."""
    if attempt > len(schedule):
        return None
    return schedule[attempt - 1] * random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 - spreads load, keeps no secret


def exponential(attempt: int, first: float = 1.0, longest: float = 60.0) -> float:
    """Seconds after attempt number `attempt`: 1, 2, 4, … up to `longest`, each between half and whole of that."""
    # From there on the wait is `longest` anyway, and an unlimited exponent would raise OverflowError.
    doubled = 2.0 ** min(attempt - 1, _MAX_EXPONENT)
    return min(first * doubled, longest) * random.uniform(0.5, 1.0)  # noqa: S311


def retry_after(headers: Iterable[tuple[bytes, bytes]], now: float) -> float:
    """Seconds of `Retry-After` in either form (RFC 9110 §10.2.3), at most a day; 0 if it is absent or malformed.

    `headers` have lower-case names. `now` is in Unix seconds.
    """
    text = next((value for name, value in headers if name == b"retry-after"), b"").decode("latin-1").strip()
    try:
        seconds = float(int(text)) if text.isdecimal() else _parse_http_date(text) - now
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)


def _parse_http_date(text: str) -> float:
    date = parsedate_to_datetime(text)
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
