"""The alert rules and the dashboard name only metrics, labels and values that exist, and every alert has its page."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from queue_middleware.observability.metrics.catalog import CATALOG, PREFIX, Kind
from queue_middleware.observability.metrics.grafana import dashboard
from queue_middleware.observability.metrics.rules import RUNBOOK, alert_rules, alerts
from tests.support.tools import tool

ROOT = Path(__file__).parents[4]
METRICS = {metric.full_name: metric for metric in CATALOG}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(dashboard())["panels"] if panel["type"] != "row"]


EXPRESSIONS = [
    *(pytest.param(alert.expression, id=alert.name) for alert in alerts()),
    *(pytest.param(target["expr"], id=panel["title"]) for panel in panels() for target in panel["targets"]),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_metrics_and_labels_that_exist(expression: str) -> None:
    found = re.findall(rf"({PREFIX}\w+)(?:{{([^}}]*)}})?", expression)
    assert found
    for name, selectors in found:
        metric = METRICS[name.removesuffix("_bucket")]
        assert name.endswith("_bucket") == (metric.kind is Kind.HISTOGRAM)
        labels = set(re.findall(r"(\w+)=", selectors)) - {"job"}
        assert labels <= set(metric.labels)
        if metric.kind is Kind.COUNTER or metric.kind is Kind.HISTOGRAM:
            assert re.search(rf"(rate|increase)\({name}", expression), "a counter is only useful as a rate"


def test_a_rule_may_be_made_stricter() -> None:
    assert "> 30" in next(alert for alert in alerts(30.0) if alert.name == "QueueSlow").expression


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_each_alert_has_a_page(alert: Any) -> None:
    page = (ROOT / "docs" / "runbook" / alert.page).read_text("utf-8")
    assert page.startswith(f"# {alert.name}\n")
    assert alert.summary in page
    assert alert.severity in ("page", "ticket")


def test_the_file_of_rules_is_yaml_and_links_the_pages() -> None:
    (group,) = yaml.safe_load(alert_rules())["groups"]
    assert [rule["alert"] for rule in group["rules"]] == [alert.name for alert in alerts()]
    assert all(rule["annotations"]["runbook_url"].startswith(RUNBOOK) for rule in group["rules"])


def test_promtool_finds_no_fault_in_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(alert_rules())
    checked = subprocess.run(
        [tool("promtool", "prometheus"), "check", "rules", str(path)], text=True, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"SUCCESS: {len(alerts())} rules found" in checked.stdout


def test_the_panels_do_not_overlap_and_fill_the_grid() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in json.loads(dashboard())["panels"]:
        place = panel["gridPos"]
        own = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not own & cells
        assert place["x"] + place["w"] <= 24
        cells |= own


def test_the_dashboard_has_four_rows_and_its_variables() -> None:
    found = json.loads(dashboard())
    assert [panel["title"] for panel in found["panels"] if panel["type"] == "row"] == [
        "Is it moving", "How long it takes", "Webhooks", "The store",
    ]  # fmt: skip
    assert [variable["name"] for variable in found["templating"]["list"]] == ["datasource", "job", "route"]
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
