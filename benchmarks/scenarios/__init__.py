"""All scenarios, in the order of the report."""

from __future__ import annotations

from benchmarks.scenario import Scenario

from . import (
    deliveries,
    hot_path,
    lists,
    low_load,
    memory,
    metrics,
    pass_through,
    peers,
    queue_length,
    streams,
    waiting,
    webhooks,
    workers,
)

SCENARIOS: tuple[Scenario, ...] = (
    hot_path.SCENARIO,
    pass_through.SCENARIO,
    webhooks.SCENARIO,
    low_load.SCENARIO,
    workers.SCENARIO,
    queue_length.SCENARIO,
    lists.SCENARIO,
    metrics.SCENARIO,
    deliveries.SCENARIO,
    streams.SCENARIO,
    waiting.SCENARIO,
    memory.SCENARIO,
    peers.SCENARIO,
)
