"""Runs scenarios: in each round all variants in turn, within a bounded time, with a line of progress for each measurement."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence

from .scenario import Conditions, Measure, Metrics, Missing, Outcome, Scenario

MEASUREMENT_SECONDS = 180
"""Longest time of one measurement; a variant that needs more is left out of the remaining rounds."""
_HARD_LIMIT = 3
"""So many times its seconds end a scenario as it is."""
_QUICK_SECONDS = 8
"""After so many seconds, no further round of a scenario begins in a quick run."""


async def run(scenarios: Sequence[Scenario], conditions: Conditions, rounds: int) -> list[Outcome]:
    """All scenarios, one after the other. What fails is reported in its outcome, and the others run nevertheless."""
    outcomes = []
    for number, scenario in enumerate(scenarios, start=1):
        progress(f"[{number}/{len(scenarios)}] {scenario.name}: {scenario.title}")
        outcome = Outcome(scenario)
        try:
            async with asyncio.timeout(scenario.seconds * _HARD_LIMIT):
                await _run_one(scenario, conditions, rounds, outcome)
        except Exception as error:
            outcome.failed[scenario.name] = _reason(error)
            progress(f"    {_reason(error)}")
        outcomes.append(outcome)
    return outcomes


async def _run_one(scenario: Scenario, conditions: Conditions, rounds: int, outcome: Outcome) -> None:
    async with scenario.open(conditions) as variants:
        seconds = _QUICK_SECONDS if conditions.quick else scenario.seconds
        deadline = time.monotonic() + seconds
        ready: dict[str, Measure] = {}
        for name, variant in variants.items():
            if isinstance(variant, Missing):
                outcome.missing[name] = variant.reason
                progress(f"    {name}: not measured, {variant.reason}")
            else:
                ready[name] = variant
        rounds *= scenario.split
        for number in range(1, rounds + 1):
            progress(f"  round {number} of {rounds}")
            outcome.rounds.append(await _round(ready, outcome.failed))
            if time.monotonic() > deadline and number < rounds:
                progress(f"  after {seconds} s no further round begins")
                return


async def _round(ready: dict[str, Measure], failed: dict[str, str]) -> dict[str, Metrics]:
    """Measure each variant once. One that fails is taken out."""
    measured = {}
    for name, measure in list(ready.items()):
        try:
            async with asyncio.timeout(MEASUREMENT_SECONDS):
                measured[name] = await measure()
        except Exception as error:
            failed[name] = _reason(error)
            del ready[name]
            progress(f"    {name}: failed, {failed[name]}")
        else:
            progress(f"    {name:32} {_shown(measured[name])}")
    return measured


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it did not end in time"
    return f"{type(error).__name__}: {error}"


def _shown(metrics: Mapping[str, float]) -> str:
    return "   ".join(f"{name} {number(value)}" for name, value in metrics.items())


def number(value: float) -> str:
    """Three digits or more, with separators."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def progress(line: str) -> None:
    """Print a line to the standard error, so that the report alone can be redirected."""
    print(line, file=sys.stderr, flush=True)
