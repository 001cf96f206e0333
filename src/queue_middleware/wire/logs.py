"""Log lines as fal spells them (fal queue contract, section 3)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from queue_middleware.models import LogLine


def logs_json(lines: Iterable[LogLine]) -> str:
    """The array of a status: ASCII JSON. `level` and `source` are told twice, because clients look in different places."""
    return f"[{', '.join([_entry(line) for line in lines])}]"


def _entry(line: LogLine) -> str:
    told = f'"level": "{line.level}", "source": {json.dumps(line.source)}'
    labels = told + "".join([f", {_label(*label)}" for label in line.labels.items() if label[0] not in ("level", "source")])
    return f'{{"message": {json.dumps(line.message)}, "timestamp": "{timestamp(line.at)}", {told}, "labels": {{{labels}}}}}'


@lru_cache(maxsize=1024)
def _label(name: str, value: str) -> str:
    return f"{json.dumps(name)}: {json.dumps(value)}"


def timestamp(at: int) -> str:
    """Microseconds since 1970 as fal writes them: UTC without saying so, e.g. `2024-12-20T15:37:17.120314`."""
    seconds, rest = divmod(at, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
