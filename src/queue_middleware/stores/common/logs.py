"""Stores and reads log lines and progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from queue_middleware.jobs.log_lines import LogLine
from queue_middleware.jobs.models import Claim, Progress

from .codec import decode_lines
from .transaction import Queries, Transaction
from .webhook_events import add_progress

LogBatch = tuple[Claim, int, bytes, Progress | None]
"""Claim, number of lines, encoded lines, progress."""


def log(transaction: Transaction, batch: Sequence[LogBatch]) -> list[bool]:
    """Store lines and progress; False for a claim that is no longer held."""
    reports = {(claim.key, claim.token): progress for claim, _, _, progress in batch if progress is not None}
    rows = [(*claim, progress.fraction, progress.stage) for claim, progress in reports.items()]
    reported = {row[:2] for row in transaction.held("update_progress", rows)}
    logged = {row[:2] for row in transaction.held("insert_log_lines", _rows(batch))}
    for claim, _, _, progress in batch:
        if claim.webhook_kinds and progress is not None and (claim.key, claim.token) in reported:
            add_progress(transaction, claim, progress)
    held = reported | logged
    return [(claim.key, claim.token) in held for claim, *_ in batch]


def _rows(batch: Sequence[LogBatch]) -> list[tuple[int, int, int, bytes]]:
    """Number the lines: a statement does not see its own rows, so several batches of one job are counted here."""
    counts: Counter[int] = Counter()
    rows: list[tuple[int, int, int, bytes]] = []
    for claim, count, lines, _ in batch:
        if count:
            counts[claim.key] += count
            rows.append((claim.key, claim.token, counts[claim.key], lines))
    return rows


def logs(queries: Queries, key: int, after: int) -> list[LogLine]:
    """The lines of a job with numbers above `after`."""
    found: list[LogLine] = []
    for last, data in queries.all("log_lines", (key, after)):
        lines = decode_lines(data, last)
        found += lines if lines[0].number > after else [line for line in lines if line.number > after]
    return found
