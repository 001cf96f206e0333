"""The report in Markdown: conditions, goals, and for each scenario its medians and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .goals import GOALS, Floors, Verdict
from .runner import number
from .scenario import Figure, Outcome, medians

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "performance.md"
CHART = PAGE.with_suffix(".svg")
BEGIN = "<!-- benchmarks: begin; what follows is written by `python -m benchmarks` -->"
END = "<!-- benchmarks: end -->"


def report(outcomes: Sequence[Outcome], conditions: Mapping[str, str]) -> str:
    """Everything, as it stands between the marks of the page."""
    parts = [_conditions(conditions), "## Goals", goals_table(medians(outcomes), _titles(outcomes))]
    for outcome in outcomes:
        parts += [f"## {_capital(outcome.scenario.title)}", *_scenario(outcome)]
    return "\n\n".join(parts)


def goals_table(measured: Mapping[str, float], titles: Mapping[str, str]) -> str:
    """Goal, floor and median of each figure with a title, if it has a goal."""
    rows = []
    for goal in (goal for goal in GOALS if goal.figure in titles):
        bound = "at least" if goal.at_least else "at most"
        median = measured.get(goal.figure)
        shown = "" if median is None else number(median)
        rows.append((titles[goal.figure], f"{bound} {goal.goal:g}", f"{goal.floor:g}", shown, goal.verdict(median)))
    return table(("figure", "goal", "floor", "measured", ""), rows)


def floors_table(floors: Floors, measured: Mapping[str, float], titles: Mapping[str, str]) -> str:
    """Bound and median of each recorded figure."""
    worse = floors.regressions(measured)
    rows = []
    for key, bound in floors.bounds().items():
        shown = number(measured[key]) if key in measured else ""
        limit = f"{'at least' if key in floors.at_least else 'at most'} {bound:.3g}"
        rows.append((titles.get(key, key), limit, shown, "regression" if key in worse else "kept"))
    return table(("figure", "bound", "measured", ""), rows)


def _titles(outcomes: Iterable[Outcome]) -> dict[str, str]:
    return {figure.key: figure.title for outcome in outcomes for figure in outcome.scenario.figures}


def _conditions(conditions: Mapping[str, str]) -> str:
    return table(("conditions", ""), conditions.items())


def _scenario(outcome: Outcome) -> Iterable[str]:
    scenario = outcome.scenario
    rounds = f"medians of {len(outcome.rounds)} rounds" if len(outcome.rounds) != 1 else "one round"
    yield f"`python -m benchmarks {scenario.name}`, {rounds}."
    if scenario.note:
        yield "\n".join(scenario.note)
    if outcome.rounds:
        yield _medians(outcome)
    figures = [row for figure in scenario.figures if (row := _figure(figure, outcome))]
    if figures:
        yield table(("figure", "median", "lowest and highest round"), figures)
    missing = {**outcome.missing, **{name: f"failed: {reason}" for name, reason in outcome.failed.items()}}
    if missing:
        yield "Not measured:"
        yield "\n".join(f"* {name}: {reason}" for name, reason in missing.items())


def _medians(outcome: Outcome) -> str:
    metrics = [
        metric for metric in outcome.scenario.columns if any(metric in row for r in outcome.rounds for row in r.values())
    ]
    rows = []
    for variant in outcome.variants():
        values = [outcome.median(variant, metric) for metric in metrics]
        rows.append((variant, *("" if value is None else number(value) for value in values)))
    return table(("", *(outcome.scenario.columns[metric] for metric in metrics)), rows)


def _figure(figure: Figure, outcome: Outcome) -> tuple[str, str, str] | None:
    values = figure.values(outcome.rounds)
    if not values:
        return None
    unit = f" {figure.unit}" if figure.unit else ""
    spread = f"{number(min(values))} to {number(max(values))}"
    return figure.title, f"{number(statistics.median(values))}{unit}", spread


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def replace_between_marks(page: str, text: str) -> str:
    """The page with this text between its marks. Raises `ValueError` if it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no marks between which the report could be written")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def missed_goals(measured: Mapping[str, float]) -> list[str]:
    """The figures below their floors."""
    return [goal.figure for goal in GOALS if goal.verdict(measured.get(goal.figure)) is Verdict.MISSED]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
