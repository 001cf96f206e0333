"""The dashboard for Grafana: whether the queue moves, how long it takes, webhooks, the store."""

from __future__ import annotations

import json
from typing import Any

from . import catalog
from .catalog import Metric

_WIDTH, _HEIGHT, _IN_ROW = 8, 7, 3
"""Of a panel, in cells of the grid, and panels side by side."""
_Panel = tuple[str, str, tuple[tuple[str, str], ...]]
"""Title, unit, and the queries with their legends."""


def _of(metric: Metric, *selectors: str, suffix: str = "") -> str:
    chosen = ['job=~"$job"', *(('route=~"$route"',) if "route" in metric.labels else ()), *selectors]
    return f"{metric.full_name}{suffix}{{{', '.join(chosen)}}}"


def _rate(metric: Metric, *by: str) -> tuple[str, str]:
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouped} (rate({_of(metric)}[$__rate_interval]))", " ".join(f"{{{{{label}}}}}" for label in by) or metric.name


def _now(metric: Metric, *by: str) -> tuple[str, str]:
    """The processes of one queue all show the same gauge, so it is not added up over them."""
    labels = ", ".join(metric.labels)
    one = f"max by ({labels}) ({_of(metric)})" if labels else f"max({_of(metric)})"
    expression = f"sum by ({', '.join(by)}) ({one})" if by else f"sum({one})"
    return expression, " ".join(f"{{{{{label}}}}}" for label in by) or metric.name


def _quantile(metric: Metric, share: float, by: str = "") -> tuple[str, str]:
    grouped = ", ".join(("le", by) if by else ("le",))
    counted = f"sum by ({grouped}) (rate({_of(metric, suffix='_bucket')}[$__rate_interval]))"
    return f"histogram_quantile({share:g}, {counted})", f"p{share * 100:g}" + (f" {{{{{by}}}}}" if by else "")


_ROWS: tuple[tuple[str, tuple[_Panel, ...]], ...] = (
    (
        "Is it moving",
        (
            ("Requests that have not ended", "short", (_now(catalog.REQUESTS, "state"),)),
            ("Submitted and finished", "reqps", (_rate(catalog.SUBMITTED), _rate(catalog.FINISHED, "outcome"))),
            ("Oldest request that could start", "s", (_now(catalog.OLDEST, "route"),)),
            ("Slots", "short", (_now(catalog.SLOTS), _now(catalog.SLOTS_BUSY), _now(catalog.SLOTS_STUCK))),
            ("Refused submissions", "reqps", (_rate(catalog.REFUSED, "reason"),)),
            ("Pauses", "short", (_now(catalog.PAUSED, "route"),)),
        ),
    ),
    (
        "How long it takes",
        (
            ("Wait for the start", "s", (_quantile(catalog.WAIT, 0.5), _quantile(catalog.WAIT, 0.95))),
            ("Attempts, 95 %", "s", (_quantile(catalog.ATTEMPT_TIME, 0.95, "route"),)),
            ("Requests, 95 %", "s", (_quantile(catalog.REQUEST_TIME, 0.95, "route"),)),
            ("Failures", "reqps", (_rate(catalog.FAILURES, "error_type"),)),
            ("Attempts by ending", "reqps", (_rate(catalog.ATTEMPTS, "ending"),)),
            ("Size of responses, 95 %", "bytes", (_quantile(catalog.RESPONSE_SIZE, 0.95, "route"),)),
        ),
    ),
    (
        "Webhooks",
        (
            ("Not delivered", "short", (_now(catalog.WEBHOOKS, "state"),)),
            ("Delivery attempts", "reqps", (_rate(catalog.WEBHOOK_ATTEMPTS, "result"),)),
            ("Lag, 95 %", "s", (_quantile(catalog.WEBHOOK_LAG, 0.95), _now(catalog.WEBHOOK_OLDEST))),
            ("Receivers", "short", (_now(catalog.RECEIVERS, "health"),)),
            ("Given up", "reqps", (_rate(catalog.GIVEN_UP),)),
            (
                "External services",
                "reqps",
                (_rate(catalog.RESULTS, "channel", "result"), _rate(catalog.POLLS, "result")),
            ),
        ),
    ),
    (
        "The store",
        (
            ("Transactions, 95 %", "s", (_quantile(catalog.COMMIT_TIME, 0.95),)),
            ("Size of the files", "bytes", (_now(catalog.DATABASE_SIZE, "part"),)),
            ("Disk", "bytes", (_now(catalog.DISK_FREE), _now(catalog.DISK_FLOOR))),
            ("Processes", "short", (_now(catalog.PROCESSES),)),
            ("Unexpected errors", "reqps", (_rate(catalog.OUTAGES, "where"),)),
            ("Lost leases and rescues", "reqps", (_rate(catalog.LEASES_LOST), _rate(catalog.RESCUED, "state"))),
        ),
    ),
)


def dashboard() -> str:
    """The dashboard as JSON, to be imported into Grafana 10 or later. Its variables are the data source, `job` and `route`."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in _ROWS:
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": _place(0, top, 3 * _WIDTH, 1)})
        top += 1
        for number, panel in enumerate(row):
            column, line = number % _IN_ROW, number // _IN_ROW
            panels.append(_panel(panel, _place(column * _WIDTH, top + line * _HEIGHT, _WIDTH, _HEIGHT)))
        top += -(-len(row) // _IN_ROW) * _HEIGHT
    for identifier, each in enumerate(panels, 1):
        each["id"] = identifier
    return json.dumps({**_FRAME, "panels": panels}, indent=2) + "\n"


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _panel(panel: _Panel, place: dict[str, int]) -> dict[str, Any]:
    title, unit, queries = panel
    return {
        "type": "timeseries",
        "title": title,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": expression, "legendFormat": legend, "datasource": _SOURCE}
            for number, (expression, legend) in enumerate(queries)
        ],
    }


def _variable(label: str) -> dict[str, Any]:
    return {
        "name": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": f"label_values({catalog.SUBMITTED.full_name}, {label})",
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_FRAME: dict[str, Any] = {
    "title": "Queue",
    "uid": "queue-middleware",
    "tags": ["queue_middleware"],
    "schemaVersion": 39,
    "editable": True,
    "refresh": "30s",
    "time": {"from": "now-3h", "to": "now"},
    "templating": {
        "list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}, _variable("job"), _variable("route")]
    },
}
