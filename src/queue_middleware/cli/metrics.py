"""`queue-middleware metrics`: the numbers of all processes."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from queue_middleware.jobs.struct import Struct
from queue_middleware.observability.metrics.store import StoredNumbers

from .exit_codes import CommandError
from .flags import add_action, add_actions
from .opening import reading
from .output import Terminal

_TEXT = "text/plain;version=0.0.4"


class MetricSample(Struct, frozen=True):
    """One number. The names are those of the reference page of the metrics."""

    name: str
    labels: dict[str, str]
    value: float


OUTPUTS: dict[str, Any] = {"metrics show": list[MetricSample]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `show`."""
    add_action(add_actions(parser), "show", "the numbers of all processes", _show)


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


async def _read(chosen: argparse.Namespace) -> StoredNumbers:
    async with reading(chosen) as stores:
        return await stores.metrics.read()
