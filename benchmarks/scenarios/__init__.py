"""All scenarios, in the order of the report."""

from __future__ import annotations

from benchmarks.scenario import Scenario

from . import hot_path

SCENARIOS: tuple[Scenario, ...] = (hot_path.SCENARIO,)
