"""The terminal of one command: data on standard output, everything else on standard error."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from io import TextIOWrapper
from typing import Any

_NOT_ASCII = re.compile(r"[^ -~\n]")
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


class Terminal:
    """Where a command prints, and how.

    `clock` returns the time in seconds since 1970. With `json` a command prints one JSON document instead of text, with `utc`
    times as UTC instead of the time since then, and with `no_input` it never asks. This is no dataclass, because importing
    `dataclasses` takes as long as all other imports of `--help` together.
    """

    def __init__(self, clock: Callable[[], float], json: bool = False, utc: bool = False, no_input: bool = False) -> None:
        self.clock = clock
        self.json = json
        self.utc = utc
        self.no_input = no_input

    @classmethod
    def of(cls, chosen: argparse.Namespace, clock: Callable[[], float]) -> Terminal:
        """The terminal that these arguments describe; flags that a command does not have are off."""
        return cls(clock, *(bool(getattr(chosen, name, False)) for name in ("json", "utc", "no_input")))

    # --- data

    def print(self, text: str = "") -> None:
        """Print a line of data."""
        print(text)

    def print_json(self, document: Any, indent: int | None = 2) -> None:
        """Print one JSON document: a `msgspec.Struct`, or what JSON can represent. Without `indent` on one line."""
        import json  # only for `--json`

        from msgspec import to_builtins

        print(printable_json(json.dumps(to_builtins(document, str_keys=True), indent=indent, ensure_ascii=False)))

    def print_table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table. A column whose name begins with `>` is aligned to the right."""
        for number, line in enumerate(self.table(columns, rows)):
            print(self.bold(line) if number == 0 else line)

    @staticmethod
    def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
        """The lines of a table."""
        right = [name.startswith(">") for name in columns]
        table = [[name.lstrip(">") for name in columns], *([printable(cell) for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return [
            "  ".join(
                cell.rjust(width) if aligned else cell.ljust(width)
                for cell, width, aligned in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in table
        ]

    def print_block(self, text: str) -> None:
        """Print a text of several lines."""
        for line in text.splitlines():
            print(printable(line))

    def flush(self) -> None:
        """Show what was printed at once."""
        sys.stdout.flush()

    # --- everything else

    def note(self, text: str) -> None:
        """Print a line that is not data."""
        print(printable(text), file=sys.stderr)

    def confirm(self, question: str) -> bool:
        """Ask the operator. False without a terminal, and with `--no-input`."""
        if self.no_input or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    # --- text

    def bold(self, text: str) -> str:
        """The text in bold, if standard output shows it."""
        return f"\x1b[1m{text}\x1b[0m" if self.has_color else text

    @property
    def has_color(self) -> bool:
        """Whether to print escape sequences: on a terminal, or with FORCE_COLOR, and never with NO_COLOR (no-color.org)."""
        if os.environ.get("NO_COLOR"):
            return False
        return bool(os.environ.get("FORCE_COLOR")) or (sys.stdout.isatty() and os.environ.get("TERM") != "dumb")

    def since(self, at: int | None) -> str:
        """How long ago a time in milliseconds was, e.g. `3 min ago`; `-` for None. With `--utc` the time itself."""
        if at is None:
            return "-"
        if self.utc:
            return timestamp(at)
        seconds = self.clock() - at / 1000
        return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"


def accept_every_character() -> None:
    """Make standard output escape what its encoding does not have, e.g. in a terminal for Latin-1, instead of failing."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def timestamp(at: int) -> str:
    """A time in milliseconds since 1970 by RFC 3339, in UTC, e.g. `2027-01-15T08:00:00.000Z`."""
    from datetime import UTC, datetime  # not needed for `--help`

    return datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at % 1000:03d}Z"


def duration(seconds: float) -> str:
    """A length of time in two units at most, e.g. `9.4 s`, `4 min 12 s`, `3 h 5 min`, `12 d`."""
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds) // 60
    if minutes < 60:
        rest = round(seconds) % 60
        return f"{minutes} min {rest} s" if minutes < 10 and rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if hours < 10 and minutes else f"{hours} h"
    return f"{hours // 24} d"


def size(count: int) -> str:
    """A number of bytes, e.g. `214 B`, `1.4 MiB`."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_SIZES) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} B" if not unit else f"{value:.1f} {_SIZES[unit]}"


def plural(number: int, thing: str) -> str:
    """A number of things, e.g. `1 request`, `1,204 requests`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """The text on one line, without characters that control a terminal: a client may have chosen it."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def printable_json(text: str) -> str:
    """JSON in which characters that control a terminal, or that standard output does not have, are escaped as JSON does it."""
    has_all = (sys.stdout.encoding or "").lower().startswith("utf")

    def escaped(found: re.Match[str]) -> str:
        import json  # only for `--json`

        return found[0] if has_all and found[0].isprintable() else json.dumps(found[0])[1:-1]

    return _NOT_ASCII.sub(escaped, text)
