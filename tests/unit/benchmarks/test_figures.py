"""Figures, goals and floors: what a run is judged by."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.goals import FLOORS, GOALS, Floors, Goal, Verdict
from benchmarks.scenario import Figure
from benchmarks.scenarios import SCENARIOS

ROUNDS = [
    {"bare": {"per second": 100.0, "cpu": 50.0}, "stored": {"per second": 30.0}},
    {"bare": {"per second": 200.0}, "stored": {"per second": 50.0}},
    {"bare": {"per second": 200.0}},
]
RATIO = Figure("share", "share", "stored", "per second", ("bare", "per second"))
FLOORS_OF_A_TEST = Floors(0.5, {"share": 0.3}, {"cost": 4.0})


def test_a_ratio_compares_measurements_of_one_round() -> None:
    assert RATIO.values(ROUNDS) == [0.3, 0.25]


def test_a_difference_is_taken_within_a_round() -> None:
    figure = Figure("less", "less", "bare", "per second", ("stored", "per second"), by="difference")
    assert figure.values(ROUNDS) == [70.0, 150.0]


def test_a_figure_without_comparison_is_the_metric() -> None:
    assert Figure("cpu", "cpu", "bare", "cpu").values(ROUNDS) == [50.0]


def test_a_comparison_with_zero_has_no_value() -> None:
    assert RATIO.values([{"bare": {"per second": 0.0}, "stored": {"per second": 1.0}}]) == []


@pytest.mark.parametrize(
    ("at_least", "measured", "verdict"),
    [
        (True, 0.34, Verdict.GOAL_MET),
        (True, 0.33, Verdict.GOAL_MET),
        (True, 0.29, Verdict.FLOOR_MET),
        (True, 0.28, Verdict.MISSED),
        (False, 0.2, Verdict.GOAL_MET),
        (False, 0.33, Verdict.GOAL_MET),
        (False, 0.37, Verdict.FLOOR_MET),
        (False, 0.41, Verdict.MISSED),
        (True, None, Verdict.NOT_MEASURED),
    ],
)
def test_the_verdict_depends_on_the_direction(at_least: bool, measured: float | None, verdict: Verdict) -> None:
    assert Goal("any", 0.33, 0.29 if at_least else 0.4, at_least).verdict(measured) is verdict


def test_a_floor_is_not_stricter_than_its_goal() -> None:
    assert [goal.figure for goal in GOALS if goal.verdict(goal.floor) is Verdict.MISSED] == []
    assert [goal.figure for goal in GOALS if (goal.goal >= goal.floor) is not goal.at_least] == []


def test_every_goal_is_that_of_a_figure() -> None:
    assert {goal.figure for goal in GOALS} <= {figure.key for scenario in SCENARIOS for figure in scenario.figures}


def test_figures_have_different_keys_and_scenarios_different_names() -> None:
    keys = [figure.key for scenario in SCENARIOS for figure in scenario.figures]
    assert len(keys) == len(set(keys))
    names = [scenario.name for scenario in SCENARIOS]
    assert len(names) == len(set(names))


def test_every_figure_is_of_a_metric_that_the_report_shows() -> None:
    hidden = [figure.key for scenario in SCENARIOS for figure in scenario.figures if figure.metric not in scenario.columns]
    assert hidden == []


# --- recorded floors


def test_the_recorded_figures_are_those_of_quick_scenarios() -> None:
    floors = Floors.load()
    quick = {figure.key for scenario in SCENARIOS if scenario.quick for figure in scenario.figures}
    assert set(floors.at_least) | set(floors.at_most) <= quick
    assert 0 < floors.head_room < 1


@pytest.mark.parametrize(
    ("measured", "worse"),
    [
        ({"share": 0.15, "cost": 8.0}, []),
        ({"share": 0.14, "cost": 8.0}, ["share"]),
        ({"share": 0.15, "cost": 8.1}, ["cost"]),
        ({"cost": 1.0}, ["share"]),
    ],
)
def test_a_regression_is_worse_than_the_record_by_more_than_the_head_room(measured: dict[str, float], worse: list[str]) -> None:
    assert list(FLOORS_OF_A_TEST.regressions(measured)) == worse


def test_only_the_figures_of_the_scenarios_that_ran_are_required() -> None:
    assert FLOORS_OF_A_TEST.of({"cost"}).regressions({"cost": 4.0}) == {}


def test_floors_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "floors.toml"
    file.write_text(FLOORS_OF_A_TEST.recorded({"share": 0.4, "unknown": 1.0}).toml())
    assert Floors.load(file) == Floors(0.5, {"share": 0.4}, {"cost": 4.0})


def test_the_file_is_as_record_writes_it() -> None:
    assert FLOORS.read_text() == Floors.load().toml()
