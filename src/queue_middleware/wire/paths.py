"""Paths into JSON: words with dots between, whole numbers for the places of an array, e.g. `output.0.url`."""

from __future__ import annotations

from typing import Any


def look(value: Any, path: str) -> Any:
    """What is at the path; None where there is nothing. An empty path is the whole."""
    for word in path.split(".") if path else ():
        if isinstance(value, dict):
            value = value.get(word)
        elif isinstance(value, list) and word.isdecimal() and int(word) < len(value):
            value = value[int(word)]
        else:
            return None
    return value


def text_of(value: Any) -> str | None:
    """A simple value as JSON spells it, text without quotes; None for nothing, objects and arrays."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else None
