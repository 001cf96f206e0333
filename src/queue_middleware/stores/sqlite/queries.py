"""The named blocks of `queries.sql`, and how one block serves a batch of rows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Any

_MOST_ROWS = 64
"""Rows in one statement; batches are cut into powers of two up to it, so that few texts fill the statement cache."""


def _load() -> dict[str, str]:
    text = (files(__package__) / "queries.sql").read_text(encoding="utf-8")
    blocks = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    pairs = zip(blocks[::2], blocks[1::2], strict=True)
    return {name: re.sub(r"^--.*\n", "", body, flags=re.MULTILINE).strip().rstrip(";") for name, body in pairs}


SQL = _load()

_ROWS = re.compile(r"\{rows\}(\([?, ]+\))")


@cache
def _for_rows(name: str, count: int) -> str:
    return _ROWS.sub(lambda match: ", ".join([match[1]] * count), SQL[name])


def execute_rows(connection: sqlite3.Connection, name: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Run a `{rows}` block for all rows, in as few statements as possible; yields what it returns, in no certain order."""
    start, left = 0, len(rows)
    while left:
        count = min(_MOST_ROWS, 1 << (left.bit_length() - 1))
        parameters = tuple(chain.from_iterable(rows[start : start + count]))
        yield from connection.execute(_for_rows(name, count), parameters).fetchall()
        start, left = start + count, left - count
