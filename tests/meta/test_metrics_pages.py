"""The pages about metrics and the runbook describe what exists, all of it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from queue_middleware.events import Recovered, ServiceError
from queue_middleware.observability import event_log
from queue_middleware.observability.metrics.catalog import CATALOG
from queue_middleware.observability.metrics.rules import alerts

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/reference/metrics.md").read_text("utf-8")
RUNBOOK = ROOT / "docs/runbook"
RECORDS = (RUNBOOK / "log-records.md").read_text("utf-8")


def test_the_reference_has_every_metric_with_its_labels() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*)\| ([^|]+) \|$", REFERENCE, re.MULTILINE)
    listed = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows]
    assert listed == [(metric.name, metric.kind, metric.labels, metric.help) for metric in CATALOG]


def test_the_reference_has_the_buckets_of_every_histogram() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([\d., ]+) \|$", REFERENCE, re.MULTILINE)
    listed = {name: tuple(map(float, bounds.split(", "))) for names, bounds in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed == {metric.name: metric.buckets for metric in CATALOG if metric.buckets}


def test_every_label_is_explained() -> None:
    explained = set(re.findall(r"^\| `(\w+)`(?: of `\w+`)? \| ", REFERENCE, re.MULTILINE))
    assert {label for metric in CATALOG for label in metric.labels} - {"version", "store"} <= explained


def test_the_runbook_has_a_page_for_each_alert_and_no_other() -> None:
    pages = {path.name for path in RUNBOOK.glob("*.md")} - {"README.md", "log-records.md"}
    assert pages == {alert.page for alert in alerts()}
    listed = re.findall(
        r"^\| \[`(\w+)`\]\(([\w-]+\.md)\) \| (\w+) \| (.+) \|$", (RUNBOOK / "README.md").read_text(), re.MULTILINE
    )
    assert listed == [(alert.name, alert.page, alert.severity, alert.summary) for alert in alerts()]


def test_every_warning_and_error_of_the_log_is_explained() -> None:
    formats = event_log._FORMATS
    loud = {kind.__name__ for kind, (level, _) in formats.items() if level >= logging.WARNING}
    assert set(re.findall(r"^## (\w+)$", RECORDS, re.MULTILINE)) - {"Warnings"} == loud | {
        ServiceError.__name__,
        Recovered.__name__,
    }


def test_every_record_that_reports_no_event_is_explained() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    assert set(re.findall(r'"queue_event": "(\w+)"', source)) == set(
        re.findall(r"^\| `(\w+)` \| [A-Z]+ \| ", RECORDS, re.MULTILINE)
    )


def test_the_texts_of_the_warnings_are_those_of_the_source() -> None:
    table = RECORDS.partition("\n## Warnings\n")[2]
    texts = [row[1] for row in re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", table, re.MULTILINE)][1:]
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", source)
    pieces = [piece.strip(" ;") for text in texts for piece in text.split("…") if piece.strip(" ;")]
    assert [piece for piece in pieces if piece not in joined] == []


def test_no_source_of_warnings_is_missing() -> None:
    """A new call of `OperatorWarning` or of `Lifecycle.warn` needs a row on the page."""
    found = {
        path.relative_to(ROOT / "src/queue_middleware").as_posix(): len(
            re.findall(r"OperatorWarning\(|ifecycle\.warn\(|self\.warn\(", text)
        )
        for path in (ROOT / "src").rglob("*.py")
        if "OperatorWarning(" in (text := path.read_text()) or ".warn(" in text
    }
    assert {name: count for name, count in found.items() if count} == {
        "asgi/lifespan.py": 1,
        "events/__init__.py": 1,
        "runtime/lifecycle.py": 2,
        "runtime/maintenance.py": 1,
        "runtime/supervisor.py": 1,
        "webhooks/signing/reloader.py": 1,
    }
