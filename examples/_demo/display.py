"""What a person sees: a table that moves in a terminal; plain lines, one per change, everywhere else (CI, a file, a pipe)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


@dataclass
class Row:
    """One request as the display knows it."""

    label: str
    status: str = "submitted"
    position: int | None = None
    fraction: float | None = None
    stage: str = ""
    result: str = ""
    webhook: str = ""
    cancelling: bool = False

    @property
    def state(self) -> str:
        """Status with the position, as a person says it."""
        if self.status == "IN_QUEUE" and self.position is not None:
            return f"IN_QUEUE, {self.position} in front"
        if self.status == "IN_PROGRESS" and self.cancelling:
            return "IN_PROGRESS, cancelling"
        return self.status

    @property
    def phase(self) -> tuple[str, str, str, str]:
        """What deserves a line of its own. Of "refine 7/30" only "refine": thirty lines would say no more."""
        return self.state, self.stage.split(" ")[0], self.result, self.webhook


@dataclass
class Display:
    """Where rows are shown. `changed` is called after every change of a row."""

    console: Console = field(default_factory=Console)
    rows: list[Row] = field(default_factory=list)
    _seen: dict[int, tuple[str, str, str, str]] = field(default_factory=dict)
    _began: float | None = None

    @property
    def moves(self) -> bool:
        """Whether the cursor can be moved. FORCE_COLOR makes rich believe in a terminal where there is none, hence both."""
        return sys.stdout.isatty() and self.console.is_terminal and not self.console.is_dumb_terminal

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the rows while the block runs."""
        if not self.moves:
            yield
            return
        with Live(console=self.console, get_renderable=lambda: table(self.rows), refresh_per_second=12):
            yield

    def changed(self, row: Row) -> None:
        """Print a line for a new phase, where there is no table that shows it."""
        if self.moves or self._seen.get(id(row)) == row.phase:
            return
        self._seen[id(row)] = row.phase
        self._timed(row, _words(row))

    def said(self, row: Row, message: str) -> None:
        """A line for what the service logged while it worked on the request; above the table, where there is one."""
        self._timed(row, f"| {message}")

    def _timed(self, row: Row, words: str) -> None:
        self._began = self._began or time.monotonic()
        self.line(f"{time.monotonic() - self._began:6.2f} s  {row.label:<24} {words}")

    def line(self, text: str = "", style: str = "") -> None:
        """One line, as it is: not wrapped, so that a URL or a command can be copied; nothing in it is read as markup."""
        self.console.print(Text(text, style=style), soft_wrap=True)


def table(rows: Sequence[Row]) -> Table:
    """All rows as they stand, narrow enough for 80 columns: what belongs to the way gives place to what belongs to the end."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("request", no_wrap=True)
    shown.add_column("status, answer", no_wrap=True, min_width=24)
    shown.add_column("progress", width=8)
    shown.add_column("stage, webhook", no_wrap=True, min_width=15)
    for row in rows:
        bar = ProgressBar(total=1.0, completed=row.fraction or 0.0, width=8)
        shown.add_row(row.label, row.result or row.state, bar, row.webhook.split(",")[0] or row.stage)
    return shown


def _words(row: Row) -> str:
    if row.webhook:
        return f"webhook {row.webhook}"
    if row.result:
        return f"{row.status}: {row.result}"
    percent = f" {row.fraction:4.0%}" if row.fraction is not None else ""
    return f"{row.state}{percent} {row.stage}".rstrip()
