"""The report, the page and the chart."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as command
from benchmarks.chart import Bar, Panel, panels, svg
from benchmarks.goals import Floors
from benchmarks.report import BEGIN, END, PAGE, floors_table, goals_table, replace_between_marks, report, table
from benchmarks.scenario import Metrics, Outcome
from benchmarks.scenarios import SCENARIOS, hot_path, queue_length

ROUND: dict[str, Metrics] = {
    "bare": {"per second": 1000.0, "cpu": 50.0},
    "stored": {"per second": 310.0, "cpu": 170.0},
}


def outcome() -> Outcome:
    return Outcome(hot_path.SCENARIO, [ROUND, ROUND], {"prototype": "it needs --prototype"}, {"before": "RuntimeError: no"})


def test_a_table_escapes_what_would_end_a_cell() -> None:
    assert table(("a", "b"), [("1|2", "3")]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |"


def test_the_report_has_goals_medians_ratios_and_what_is_missing() -> None:
    text = report([outcome()], {"machine": "two cores"})
    assert "| machine | two cores |" in text
    assert "| stored jobs ÷ bare requests, varying headers | at least 0.33 | 0.29 | 0.31 | floor met |" in text
    assert "| CPU for a job ÷ CPU for a bare request | at most 2.8 | 3.2 | 3.4 | missed |" in text
    assert "| stored | 310 | 170 |" in text
    assert "* prototype: it needs --prototype" in text
    assert "* before: failed: RuntimeError: no" in text


def test_the_table_of_goals_has_those_of_the_scenarios_that_ran() -> None:
    assert "peers" not in goals_table({}, {"hot-path.stored": "stored"})


def test_the_table_of_floors_names_regressions() -> None:
    floors, title = Floors(0.5, {"hot-path.stored": 0.3}, {}), {"hot-path.stored": "stored"}
    assert "| stored | at least 0.15 | 0.1 | regression |" in floors_table(floors, {"hot-path.stored": 0.1}, title)


def test_only_the_text_between_the_marks_is_replaced() -> None:
    page = f"# Page\n\n{BEGIN}\n\nold\n\n{END}\n\nend\n"
    assert replace_between_marks(page, "new") == f"# Page\n\n{BEGIN}\n\nnew\n\n{END}\n\nend\n"


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no marks"):
        replace_between_marks("# Page\n", "new")


def test_the_page_can_be_written_again() -> None:
    assert "new" in replace_between_marks(PAGE.read_text(), "new")


# --- the chart


def test_the_chart_is_xml_with_a_bar_for_each_row() -> None:
    root = ElementTree.fromstring(svg([Panel("a < b", [Bar("one & two", 1.0, "1"), Bar("none", 0.0, "0")])]))
    assert len(root.findall(".//{http://www.w3.org/2000/svg}rect")) == 3  # with the background


def test_the_chart_shows_shares_and_times() -> None:
    lengths = Outcome(queue_length.SCENARIO, [{"short": {"status": 400.0}, "long": {"status": 410.0}}])
    shares, times = panels([outcome(), lengths])
    assert [(bar.label, bar.value) for bar in shares.bars] == [("bare", 1.0), ("queue: stored", 0.31)]
    assert [bar.label for bar in times.bars] == ["status, short", "status, long"]


# --- the command


def test_the_list_names_all_scenarios(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [scenario.name for scenario in SCENARIOS]


def test_an_unknown_scenario_is_refused() -> None:
    with pytest.raises(SystemExit):
        command.main(["no-such-scenario"])


def test_the_readme_describes_every_scenario_and_option() -> None:
    text = (Path(command.__file__).parent / "README.md").read_text()
    assert re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE) == [scenario.name for scenario in SCENARIOS]
    options = {option for action in command._parser()._actions for option in action.option_strings if option.startswith("--")}
    assert {option for option in options - {"--help"} if option not in text} == set()
