"""`queue-middleware metrics`: the numbers of all processes, and what Grafana and Prometheus need to show and watch them."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from queue_middleware.jobs.struct import Struct
from queue_middleware.observability.metrics.grafana import dashboard
from queue_middleware.observability.metrics.rules import alert_rules
from queue_middleware.observability.metrics.store import StoredNumbers

from .exit_codes import CommandError
from .flags import add_action, add_actions, seconds
from .opening import reading
from .output import Terminal

_SLOWEST_WAIT = 300.0
_TEXT = "text/plain;version=0.0.4"


class MetricSample(Struct, frozen=True):
    """One number. The names are those of the reference page of the metrics."""

    name: str
    labels: dict[str, str]
    value: float


OUTPUTS: dict[str, Any] = {
    "metrics show": list[MetricSample],
    "metrics grafana": dict[str, Any],
    "metrics rules": dict[str, Any],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `show`, `grafana` and `rules`."""
    actions = add_actions(parser)
    add_action(actions, "show", "the numbers of all processes", _show)
    add_action(actions, "grafana", "a dashboard for Grafana", _grafana, database=False)
    rules = add_action(actions, "rules", "alert rules for Prometheus", _rules, database=False)
    rules.add_argument(
        "--slowest-wait",
        metavar="TIME",
        type=seconds,
        default=_SLOWEST_WAIT,
        help="the alert about slow starts: 95 %% of the requests should start within this time; default 5m",
    )


def _show(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Print all metrics in the text format of Prometheus, from the database: the service may run or not."""
    numbers = asyncio.run(_read(chosen))
    try:
        from queue_middleware.observability.metrics.exposition import expose, families
    except ImportError:
        raise CommandError("metrics need prometheus-client: pip install 'queue-middleware[metrics]'") from None
    if terminal.json:
        samples = [sample for family in families(numbers) for sample in family.samples]
        terminal.print_json([MetricSample(sample.name, dict(sample.labels), sample.value) for sample in samples])
    else:
        terminal.print(expose(numbers, _TEXT)[0].decode().rstrip("\n"))


def _grafana(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Print a dashboard as JSON, to be imported into Grafana."""
    _print(dashboard(), terminal)


def _rules(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Print alert rules as a file for `rule_files` of Prometheus. Each alert names its page of the runbook."""
    _print(alert_rules(chosen.slowest_wait), terminal)


def _print(document: str, terminal: Terminal) -> None:
    """Both are JSON in any case; YAML contains JSON."""
    if terminal.json:
        terminal.print_json(json.loads(document))
    else:
        terminal.print(document.rstrip("\n"))


async def _read(chosen: argparse.Namespace) -> StoredNumbers:
    async with reading(chosen) as stores:
        return await stores.metrics.read()
