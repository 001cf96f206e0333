"""The named blocks of `queries.sql` and `tasks.sql`, and how one block serves a batch of rows.

May import: what `stores.sqlite` may import.
Begin with the two `.sql` files; `schema` applies `migrations/`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib.resources import files
from itertools import chain
from types import TracebackType
from typing import Any

import msgspec

_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Rows of the statements that exist. A batch takes the next larger one and is filled up with rows of NULL, which are skipped:
few texts fill the statement cache, and nearly every batch is one statement."""


def _load() -> dict[str, str]:
    text = "\n".join((files(__package__) / name).read_text(encoding="utf-8") for name in ("queries.sql", "tasks.sql"))
    blocks = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    pairs = zip(blocks[::2], blocks[1::2], strict=True)
    return {name: re.sub(r"^--.*\n", "", body, flags=re.MULTILINE).strip().rstrip(";") for name, body in pairs}


SQL = _load()

_LIST = re.compile(r"\bjson_each\((\?|:\w+)\)")


def _lists(text: str) -> tuple[int | str, ...]:
    """The parameters of a block that are lists: the position of each `?`, or the name."""
    found = {text.count("?", 0, match.start(1)) if match[1] == "?" else match[1][1:] for match in _LIST.finditer(text)}
    return tuple(sorted(found, key=str))


_LISTS = {name: lists for name, text in SQL.items() if (lists := _lists(text))}
_encode = msgspec.json.Encoder().encode


def bind(name: str, parameters: Any) -> Any:
    """The parameters as SQLite takes them: it has no lists, so a block reads them from JSON text with `json_each`."""
    lists = _LISTS.get(name)
    return parameters if lists is None else _with_json(lists, parameters)


def _with_json(lists: tuple[int | str, ...], parameters: Any) -> Any:
    bound: Any = dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
    for place in lists:
        if bound[place] is not None:
            bound[place] = _encode(bound[place]).decode()
    return bound


_ROWS = re.compile(r"\{rows\}(\([?, ]+\))")


@cache
def _for_rows(name: str, count: int) -> str:
    return _ROWS.sub(lambda match: ", ".join([match[1]] * count), SQL[name])


class SQLiteQueries:
    """`transaction.Queries` on one connection, in its thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._snapshot = _Snapshot(connection)

    def one(self, name: str, parameters: Any = ()) -> tuple[Any, ...] | None:
        """The first row; no cursor stays open behind it."""
        rows = self.connection.execute(SQL[name], bind(name, parameters)).fetchall()
        return rows[0] if rows else None

    def all(self, name: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """All rows; no cursor stays open behind them."""
        return self.connection.execute(SQL[name], bind(name, parameters)).fetchall()

    def rows(self, name: str, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """All rows that a `{rows}` block finds."""
        cursors = (self.connection.execute(*statement) for statement in _statements(name, rows))
        return [row for cursor in cursors for row in cursor.fetchall()]

    def snapshot(self) -> AbstractContextManager[None]:
        """A block whose queries all see the same state."""
        return self._snapshot


class _Snapshot:
    """A read transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.execute("COMMIT")


def execute_rows(connection: sqlite3.Connection, name: str, rows: Sequence[tuple[Any, ...]]) -> int:
    """Run a `{rows}` block for all rows, in as few statements as possible; how many rows of the table it changed."""
    changed = 0
    for statement in _statements(name, rows):
        changed += connection.execute(*statement).rowcount
    return changed


def _statements(name: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    most = _SIZES[-1]
    for start in range(0, len(rows), most):
        chunk = rows[start : start + most]
        size = next(size for size in _SIZES if size >= len(chunk))
        padding = (None,) * ((size - len(chunk)) * len(chunk[0]))
        yield _for_rows(name, size), (*chain.from_iterable(chunk), *padding)
