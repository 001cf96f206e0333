"""What a scenario is: variants that are measured in turn, and figures that compare them within one round."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Metrics = dict[str, float]
Measure = Callable[[], Awaitable[Metrics]]


@dataclass(frozen=True)
class Missing:
    """A variant that cannot be measured here."""

    reason: str


Variants = Mapping[str, Measure | Missing]
"""By name; each round measures them in this order."""


@dataclass(frozen=True)
class Conditions:
    """What is the same for all scenarios of a run."""

    folder: Path
    """Temporary; everything that a scenario writes is in it."""
    quick: bool = False
    prototype: Path | None = None
    before: Path | None = None

    def count(self, full: int, quick: int) -> int:
        """The size of a measurement in this run."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Figure:
    """One number of the report, computed for each round: a metric of a variant, compared with another one or on its own."""

    key: str
    title: str
    variant: str
    metric: str
    against: tuple[str, str] | None = None
    """Variant and metric of what it is compared with."""
    by: Literal["ratio", "difference"] = "ratio"
    unit: str = ""

    def values(self, rounds: Sequence[Mapping[str, Metrics]]) -> list[float]:
        """Its value in each round in which everything that it needs was measured."""
        return [value for measured in rounds if (value := self._value(measured)) is not None]

    def _value(self, measured: Mapping[str, Metrics]) -> float | None:
        value = measured.get(self.variant, {}).get(self.metric)
        if value is None or self.against is None:
            return value
        variant, metric = self.against
        other = measured.get(variant, {}).get(metric)
        if other is None:
            return None
        if self.by == "difference":
            return value - other
        return value / other if other else None


@dataclass(frozen=True)
class Scenario:
    """Something that is measured."""

    name: str
    title: str
    open: Callable[[Conditions], AbstractAsyncContextManager[Variants]]
    """Starts what the variants need, and warms it up."""
    figures: tuple[Figure, ...]
    columns: Mapping[str, str]
    """The metrics that the report shows, with the units that stand in its header."""
    seconds: int
    """After so many seconds no further round begins. Three times as many end the scenario as it is."""
    quick: bool = False
    """Whether `--quick` runs it."""
    note: tuple[str, ...] = ()
    """How it is measured: sentences for the report."""
    split: int = 1
    """Each round is split into so many short ones, so that what else the machine does falls on all variants alike."""


@dataclass
class Outcome:
    """What a scenario measured."""

    scenario: Scenario
    rounds: list[dict[str, Metrics]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Variants that cannot be measured here, and why."""
    failed: dict[str, str] = field(default_factory=dict)
    """Variants that failed, and how; or the scenario as a whole."""

    def variants(self) -> list[str]:
        """Those that were measured at least once."""
        return list(dict.fromkeys(name for measured in self.rounds for name in measured))

    def median(self, variant: str, metric: str) -> float | None:
        """Over the rounds; None if it was never measured."""
        values = [measured[variant][metric] for measured in self.rounds if metric in measured.get(variant, {})]
        return statistics.median(values) if values else None


def medians(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """The median of each figure that was measured, by its key."""
    return {
        figure.key: statistics.median(values)
        for outcome in outcomes
        for figure in outcome.scenario.figures
        if (values := figure.values(outcome.rounds))
    }
