"""Loads the named blocks of the `.sql` files beside this module, and executes a block for a batch of rows.

May import: what `stores.sqlite` may import.
Begin with `queries.sql`; `schema` applies `migrations/`.
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
"""Numbers of rows for which statements exist. A batch uses the next larger number and is padded with rows of -1, which are
skipped. So there are few statements to cache, and nearly every batch is one statement."""


def _load() -> dict[str, str]:
    found = sorted(
        (item.name, item.read_text(encoding="utf-8")) for item in files(__package__).iterdir() if item.name.endswith(".sql")
    )
    text = "\n".join(blocks for _, blocks in found)
    blocks = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    pairs = zip(blocks[::2], blocks[1::2], strict=True)
    return {name: re.sub(r"^--.*\n", "", body, flags=re.MULTILINE).strip().rstrip(";") for name, body in pairs}


SQL = _load()

_LIST = re.compile(r"\bjson_each\((\?|:\w+)\)")


def _lists(text: str) -> tuple[int | str, ...]:
    """The list parameters of a block: the position of each `?`, or the name."""
    found = {text.count("?", 0, match.start(1)) if match[1] == "?" else match[1][1:] for match in _LIST.finditer(text)}
    return tuple(sorted(found, key=str))


_LISTS = {name: lists for name, text in SQL.items() if (lists := _lists(text))}
_encode = msgspec.json.Encoder().encode


def bind(name: str, parameters: Any) -> Any:
    """The parameters in the form that SQLite accepts: lists as JSON text, which the block reads with `json_each`."""
    lists = _LISTS.get(name)
    return parameters if lists is None else _with_json(lists, parameters)


def _with_json(lists: tuple[int | str, ...], parameters: Any) -> Any:
    bound: Any = dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
    for key in lists:
        if bound[key] is not None:
            bound[key] = _encode(bound[key]).decode()
    return bound


_ROWS = re.compile(r"\{rows\}(\([?, ]+\))")


@cache
def _for_rows(name: str, count: int) -> str:
    return _ROWS.sub(lambda match: ", ".join([match[1]] * count), SQL[name])


class SQLiteQueries:
    """`common.transaction.Queries` on one connection, in its thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._snapshot = _Snapshot(connection)

    def one(self, name: str, parameters: Any = ()) -> tuple[Any, ...] | None:
        """The first row. No cursor stays open."""
        rows = self.connection.execute(SQL[name], bind(name, parameters)).fetchall()
        return rows[0] if rows else None

    def all(self, name: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """All rows. No cursor stays open."""
        return self.connection.execute(SQL[name], bind(name, parameters)).fetchall()

    def rows(self, name: str, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """All rows that a `{rows}` block finds."""
        cursors = (self.connection.execute(*statement) for statement in _statements(name, rows, ()))
        return [row for cursor in cursors for row in cursor.fetchall()]

    def snapshot(self) -> AbstractContextManager[None]:
        """A context in which all queries see the same state."""
        return self._snapshot


class _Snapshot:
    """A read transaction as a context."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.execute("COMMIT")


def execute_rows(
    connection: sqlite3.Connection, name: str, rows: Sequence[tuple[Any, ...]], common: tuple[Any, ...] = ()
) -> int:
    """Run a `{rows}` block for all rows, in as few statements as possible. Returns how many rows of the table it changed.

    `common` are the parameters before the rows.
    """
    changed = 0
    for statement in _statements(name, rows, common):
        changed += connection.execute(*statement).rowcount
    return changed


def _statements(name: str, rows: Sequence[tuple[Any, ...]], common: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    largest = _SIZES[-1]
    for start in range(0, len(rows), largest):
        batch = rows[start : start + largest]
        size = next(size for size in _SIZES if size >= len(batch))
        # Not NULL: Python's sqlite3 binds an int in a fraction of the time of None.
        padding = (-1,) * ((size - len(batch)) * len(batch[0]))
        yield _for_rows(name, size), (*common, *chain.from_iterable(batch), *padding)
