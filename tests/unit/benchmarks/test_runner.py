"""Rounds, failures and what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks import runner
from benchmarks.scenario import Conditions, Figure, Measure, Metrics, Missing, Scenario, Variants, medians

Open = Callable[[Conditions], AsyncIterator[Variants]]


def scenario(opened: Open, **options: int) -> Scenario:
    figures = (Figure("ratio", "ratio", "b", "n", ("a", "n")),)
    return Scenario("one", "one", asynccontextmanager(opened), figures, {"n": "n"}, **{"seconds": 10, **options})


def counted(calls: list[str], name: str, value: float) -> Measure:
    async def measure() -> Metrics:
        calls.append(name)
        return {"n": value}

    return measure


async def fail() -> Metrics:
    raise RuntimeError("no")


async def hang() -> Metrics:
    await asyncio.Event().wait()
    raise AssertionError


async def test_each_round_measures_all_variants_in_turn(tmp_path: Path) -> None:
    calls: list[str] = []

    async def opened(conditions: Conditions) -> AsyncIterator[Variants]:
        yield {"a": counted(calls, "a", 2.0), "b": counted(calls, "b", 3.0)}
        calls.append("closed")

    (outcome,) = await runner.run([scenario(opened)], Conditions(tmp_path), 2)
    assert calls == ["a", "b", "a", "b", "closed"]
    assert medians([outcome]) == {"ratio": 1.5}
    assert (outcome.missing, outcome.failed) == ({}, {})


async def test_a_split_scenario_has_more_rounds(tmp_path: Path) -> None:
    calls: list[str] = []

    async def opened(conditions: Conditions) -> AsyncIterator[Variants]:
        yield {"a": counted(calls, "a", 2.0)}

    (outcome,) = await runner.run([scenario(opened, split=3)], Conditions(tmp_path), 2)
    assert len(outcome.rounds) == len(calls) == 6


async def test_a_variant_that_fails_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    calls: list[str] = []

    async def opened(conditions: Conditions) -> AsyncIterator[Variants]:
        yield {"bad": fail, "absent": Missing("not installed"), "a": counted(calls, "a", 2.0)}

    (outcome,) = await runner.run([scenario(opened)], Conditions(tmp_path), 2)
    assert calls == ["a", "a"]
    assert outcome.failed == {"bad": "RuntimeError: no"}
    assert outcome.missing == {"absent": "not installed"}
    assert outcome.variants() == ["a"]
    assert medians([outcome]) == {}


async def test_a_measurement_that_takes_too_long_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MEASUREMENT_SECONDS", 0)

    async def opened(conditions: Conditions) -> AsyncIterator[Variants]:
        yield {"slow": hang}

    (outcome,) = await runner.run([scenario(opened)], Conditions(tmp_path), 1)
    assert outcome.failed == {"slow": "it did not end in time"}


async def test_a_scenario_that_cannot_start_has_failed_and_the_next_one_runs(tmp_path: Path) -> None:
    async def broken(conditions: Conditions) -> AsyncIterator[Variants]:
        if conditions:
            raise OSError("no port")
        yield {}

    async def opened(conditions: Conditions) -> AsyncIterator[Variants]:
        yield {"a": counted([], "a", 2.0)}

    first, second = await runner.run([scenario(broken), scenario(opened)], Conditions(tmp_path), 1)
    assert first.failed == {"one": "OSError: no port"}
    assert second.rounds == [{"a": {"n": 2.0}}]


async def test_no_round_begins_after_the_time_of_the_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def opened(conditions: Conditions) -> AsyncIterator[Variants]:
        yield {"a": counted([], "a", 2.0)}

    monkeypatch.setattr(runner, "_QUICK_SECONDS", -1)
    (outcome,) = await runner.run([scenario(opened)], Conditions(tmp_path, quick=True), 5)
    assert len(outcome.rounds) == 1
