"""Parses durations with a unit, as options and the command accept them."""

from __future__ import annotations

import re

from queue_middleware.errors import SettingsError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
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
