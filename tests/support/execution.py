"""A fake attempt, for tests of what a handler reports through `current_job` and `logging`."""

from __future__ import annotations

from typing import Any

from queue_middleware.jobs.log_lines import LogLine
from queue_middleware.jobs.models import Progress
from queue_middleware.worker.job_context import ActiveJob


class FakeExecution:
    """Replaces an attempt and its log buffer; records what is written."""

    def __init__(self, *, over: bool = False) -> None:
        execution: Any = self  # without `callback_url`, which these tests do not use
        self.job = ActiveJob("the-id", 2, "/items/{id}", execution, lambda: execution)
        self.over = over
        self.lines: list[LogLine] = []
        self.reports: list[Progress] = []

    def log_buffer(self) -> FakeExecution | None:
        return None if self.over else self

    def now(self) -> int:
        return 1_800_000_000_000_000 + len(self.lines)

    def write(self, line: LogLine) -> None:
        self.lines.append(line)

    def report(self, progress: Progress) -> None:
        self.reports.append(progress)
