"""Shows the requests: as a live table in a terminal, or as one line for each change elsewhere (CI, a file, a pipe)."""

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
    """What the display shows of one request."""

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
        """The status, with the position or a cancellation in progress."""
        if self.status == "IN_QUEUE" and self.position is not None:
            return f"IN_QUEUE, {self.position} in front"
        if self.status == "IN_PROGRESS" and self.cancelling:
            return "IN_PROGRESS, cancelling"
        return self.status

    @property
    def phase(self) -> tuple[str, str, str, str]:
        """A new value gets a line. Of the stage "refine 7/30" only "refine" counts, because thirty lines would add nothing."""
        return self.state, self.stage.split(" ")[0], self.result, self.webhook


@dataclass
class Display:
    """Shows rows. Call `changed` after every change of a row."""

    console: Console = field(default_factory=Console)
    rows: list[Row] = field(default_factory=list)
    _last_phase: dict[int, tuple[str, str, str, str]] = field(default_factory=dict)
    _started: float | None = None

    @property
    def is_live(self) -> bool:
        """Whether the table can be redrawn. FORCE_COLOR makes rich assume a terminal, so stdout is checked too."""
        return sys.stdout.isatty() and self.console.is_terminal and not self.console.is_dumb_terminal

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the table while the block runs, if the output is a terminal."""
        if not self.is_live:
            yield
            return
        with Live(console=self.console, get_renderable=lambda: table(self.rows), refresh_per_second=12):
            yield

    def changed(self, row: Row) -> None:
        """Print a line for a new phase, unless the table shows it."""
        if self.is_live or self._last_phase.get(id(row)) == row.phase:
            return
        self._last_phase[id(row)] = row.phase
        self._print_timed(row, _text(row))

    def logged(self, row: Row, message: str) -> None:
        """Print what the service logged while it worked on the request, above the table if there is one."""
        self._print_timed(row, f"| {message}")

    def _print_timed(self, row: Row, text: str) -> None:
        self._started = self._started or time.monotonic()
        self.line(f"{time.monotonic() - self._started:6.2f} s  {row.label:<24} {text}")

    def line(self, text: str = "", style: str = "") -> None:
        """Print one line unchanged: not wrapped, so that a URL or a command can be copied, and without markup."""
        self.console.print(Text(text, style=style), soft_wrap=True)


def table(rows: Sequence[Row]) -> Table:
    """A table of all rows in 80 columns. The result replaces the status, and the webhook replaces the stage."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("request", no_wrap=True)
    shown.add_column("status, response", no_wrap=True, min_width=24)
    shown.add_column("progress", width=8)
    shown.add_column("stage, webhook", no_wrap=True, min_width=15)
    for row in rows:
        bar = ProgressBar(total=1.0, completed=row.fraction or 0.0, width=8)
        shown.add_row(row.label, row.result or row.state, bar, row.webhook.split(",")[0] or row.stage)
    return shown


def _text(row: Row) -> str:
    if row.webhook:
        return f"webhook {row.webhook}"
    if row.result:
        return f"{row.status}: {row.result}"
    percent = f" {row.fraction:4.0%}" if row.fraction is not None else ""
    return f"{row.state}{percent} {row.stage}".rstrip()
