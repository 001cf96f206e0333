"""`python -m benchmarks`: run the scenarios, print the report, and compare it with the goals or the recorded floors."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import uvloop

from .chart import panels, svg
from .goals import FLOORS, Floors
from .machine import describe
from .processor_time import is_counted
from .report import CHART, PAGE, floors_table, missed_goals, replace_between_marks, report
from .runner import progress, run
from .scenario import Conditions, Outcome, Scenario, medians
from .scenarios import SCENARIOS

ROUNDS, QUICK_ROUNDS = 5, 3
_BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if a figure is below its floor or a variant failed, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    if options.list:
        for scenario in SCENARIOS:
            print(f"{scenario.name:14} {'quick' if scenario.quick else '':6} {scenario.title}")
        return 0
    chosen = [_BY_NAME[name] for name in options.scenarios] or [one for one in SCENARIOS if one.quick or not options.quick]
    try:
        outcomes, conditions = uvloop.run(_measure(chosen, options))
    except (KeyboardInterrupt, asyncio.CancelledError):
        progress("interrupted; all servers have been ended")
        return 130
    measured = medians(outcomes)
    if options.json:
        options.json.write_text(json.dumps(_as_json(outcomes, conditions, measured), indent=1, ensure_ascii=False) + "\n")
    text = report(outcomes, conditions)
    print(text)
    if not options.quick and len(chosen) == len(SCENARIOS):
        _write_page(text, outcomes)
    return _judge(options, chosen, outcomes, measured)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenarios", nargs="*", choices=[[], *_BY_NAME], metavar="SCENARIO", help="by default all (see --list)")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("--rounds", type=int, help=f"by default {ROUNDS}, or {QUICK_ROUNDS} with --quick")
    parser.add_argument("--quick", action="store_true", help="about a minute; compares with benchmarks/floors.toml")
    parser.add_argument("--record", action="store_true", help="with --quick: write what was measured to floors.toml")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to a file")
    parser.add_argument("--prototype", type=Path, metavar="FILE", help="measure a prototype of the hot path too")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="measure the checkout of an earlier version too")
    return parser


async def _measure(chosen: Sequence[Scenario], options: argparse.Namespace) -> tuple[list[Outcome], dict[str, str]]:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    with tempfile.TemporaryDirectory(prefix="queue-benchmarks-", ignore_cleanup_errors=True) as folder:
        conditions = Conditions(Path(folder), options.quick, _resolved(options.prototype), _resolved(options.before))
        described = describe(conditions.folder)
        return await run(chosen, conditions, rounds), described


def _resolved(path: Path | None) -> Path | None:
    return path.resolve(strict=True) if path else None


def _write_page(text: str, outcomes: Sequence[Outcome]) -> None:
    chart = f"![Throughput relative to the bare application, and times against the length of the queue]({CHART.name})"
    CHART.write_text(svg(panels(outcomes)))
    PAGE.write_text(replace_between_marks(PAGE.read_text(), f"{chart}\n\n{text}"))
    progress(f"written: {PAGE}")


def _judge(
    options: argparse.Namespace, chosen: Sequence[Scenario], outcomes: Sequence[Outcome], measured: Mapping[str, float]
) -> int:
    """Compare with floors that were recorded for a quick run, and with the goals otherwise."""
    failed = [f"{outcome.scenario.name}: {name}: {why}" for outcome in outcomes for name, why in outcome.failed.items()]
    if options.quick:
        figures = [figure for scenario in chosen for figure in scenario.figures]
        required = {figure.key for figure in figures if is_counted() or not figure.metric.endswith("cpu")}
        floors = Floors.load().of(required)
        print("\n" + floors_table(floors, measured, {figure.key: figure.title for figure in figures}))
        failed += [f"{key}: {how}" for key, how in floors.regressions(measured).items()]
        if options.record:
            FLOORS.write_text(Floors.load().recorded(measured).toml())
            progress(f"written: {FLOORS}")
    else:
        failed += [f"{key} is below its floor" for key in missed_goals(measured)]
    for line in failed:
        progress(f"FAILED  {line}")
    return 1 if failed else 0


def _as_json(outcomes: Sequence[Outcome], conditions: Mapping[str, str], measured: Mapping[str, float]) -> dict[str, object]:
    scenarios = {
        outcome.scenario.name: {"rounds": outcome.rounds, "missing": outcome.missing, "failed": outcome.failed}
        for outcome in outcomes
    }
    return {"conditions": conditions, "medians": measured, "scenarios": scenarios}


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())
