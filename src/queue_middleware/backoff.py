"""Waits before the next attempt."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime

_MAX_EXPONENT = 64
_LONGEST_RETRY_AFTER = 86400.0


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
