"""What the figures must be: the goals of a complete run, and the recorded ratios that a quick run is compared with."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

FLOORS = Path(__file__).with_name("floors.toml")


class Verdict(StrEnum):
    """How a figure compares with its goal."""

    GOAL_MET = "goal met"
    FLOOR_MET = "floor met"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Goal:
    """What a figure should be, and what it must be."""

    figure: str
    goal: float
    floor: float
    at_least: bool
    """Whether higher is better; otherwise both are upper bounds."""

    def verdict(self, measured: float | None) -> Verdict:
        """Compare a median with both."""
        if measured is None:
            return Verdict.NOT_MEASURED
        if self._keeps(measured, self.goal):
            return Verdict.GOAL_MET
        return Verdict.FLOOR_MET if self._keeps(measured, self.floor) else Verdict.MISSED

    def _keeps(self, measured: float, bound: float) -> bool:
        return measured >= bound if self.at_least else measured <= bound


def _at_least(figure: str, goal: float, floor: float) -> Goal:
    return Goal(figure, goal, floor, at_least=True)


def _at_most(figure: str, goal: float, floor: float) -> Goal:
    return Goal(figure, goal, floor, at_least=False)


_LISTS = (
    "all", "failed", "failed-of-a-route", "queued-of-a-client", "a-route", "an-error", "a-status-that-no-request-has",
    "a-client-without-requests",
)  # fmt: skip
GOALS = (
    _at_least("hot-path.stored", 0.33, 0.29),
    _at_most("hot-path.cpu", 2.8, 3.2),
    _at_least("hot-path.prototype", 0.85, 0.72),
    _at_most("hot-path.p99-before", 0.6, 0.8),
    _at_least("workers.rate", 1.4, 1.25),
    _at_most("workers.p99", 0.8, 1),
    _at_least("peers.saq", 5, 3.5),
    _at_least("peers.huey", 6, 4),
    _at_least("webhooks.received", 0.15, 0.10),
    _at_most("pass-through.added", 0.4, 0.6),
    _at_most("queue-length.claim", 1.3, 1.5),
    _at_most("queue-length.status", 1.3, 1.5),
    _at_most("queue-length.submit", 1.3, 1.5),
    *(_at_most(f"lists.{kind}", 5, 7.5) for kind in _LISTS),
    _at_most("metrics.counting", 3, 4),
    _at_most("metrics.scrape", 20, 30),
    _at_most("metrics.growth", 1.3, 1.5),
    _at_least("deliveries.rate", 4.5, 3.5),
)


@dataclass(frozen=True)
class Floors:
    """Medians of an earlier quick run, and how much worse a later one may be."""

    head_room: float
    """A share: what should be at least 1.0 may be this much."""
    at_least: Mapping[str, float]
    at_most: Mapping[str, float]

    @classmethod
    def load(cls, path: Path = FLOORS) -> Floors:
        """Read them."""
        table = tomllib.loads(path.read_text())
        return cls(table["head_room"], table["at_least"], table["at_most"])

    def of(self, figures: Collection[str]) -> Floors:
        """The floors of these figures only."""
        at_least = {key: value for key, value in self.at_least.items() if key in figures}
        at_most = {key: value for key, value in self.at_most.items() if key in figures}
        return Floors(self.head_room, at_least, at_most)

    def bounds(self) -> dict[str, float]:
        """The bound of each figure."""
        lower = {key: recorded * self.head_room for key, recorded in self.at_least.items()}
        return lower | {key: recorded / self.head_room for key, recorded in self.at_most.items()}

    def regressions(self, medians: Mapping[str, float]) -> dict[str, str]:
        """The figures of these that are worse than they may be, or were not measured, and how."""
        found = {}
        for key, bound in self.bounds().items():
            measured = medians.get(key)
            if measured is None:
                found[key] = "not measured"
            elif measured < bound if key in self.at_least else measured > bound:
                found[key] = f"{measured:.3g}, but {'at least' if key in self.at_least else 'at most'} {bound:.3g} is required"
        return found

    def recorded(self, medians: Mapping[str, float]) -> Floors:
        """The same figures with the medians of a new run."""
        return Floors(
            self.head_room,
            {key: medians.get(key, value) for key, value in self.at_least.items()},
            {key: medians.get(key, value) for key, value in self.at_most.items()},
        )

    def toml(self) -> str:
        """The text of `floors.toml`."""
        lines = [
            "# Medians of `python -m benchmarks --quick`, written by `--record`. A later run fails when a figure is worse than",
            "# its record by more than the head room: at_least times head_room, at_most ÷ head_room.",
            f"head_room = {self.head_room}",
        ]
        for name, table in (("at_least", self.at_least), ("at_most", self.at_most)):
            lines += ["", f"[{name}]", *(f'"{key}" = {value:.3g}' for key, value in table.items())]
        return "\n".join(lines) + "\n"
