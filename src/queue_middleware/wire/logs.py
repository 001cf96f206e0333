"""Log lines as fal spells them (fal queue contract, section 3)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted

from queue_middleware.logline import LogLine


def entries_json(lines: Iterable[LogLine]) -> str:
    """What stands in the array of a status: ASCII JSON. `level` and `source` are told twice: clients look in different places.

    What many lines have in common is spelled once.
    """
    tails: dict[tuple[object, ...], str] = {}
    entries: list[str] = []
    for line in lines:
        common = (line.level, line.source, *line.labels.items())
        tail = tails.get(common)
        if tail is None:
            tail = tails[common] = _tail(line)
        entries.append(f'{{"message": {quoted(line.message)}, "timestamp": "{timestamp(line.at)}{tail}')
    return ", ".join(entries)


def _tail(line: LogLine) -> str:
    told = f'"level": "{line.level}", "source": {quoted(line.source)}'
    labels = [f", {quoted(name)}: {quoted(value)}" for name, value in line.labels.items() if name not in ("level", "source")]
    return f'", {told}, "labels": {{{told}{"".join(labels)}}}}}'


def timestamp(at: int) -> str:
    """Microseconds since 1970 as fal writes them: UTC without saying so, e.g. `2024-12-20T15:37:17.120314`."""
    seconds, rest = divmod(at, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
