"""The alert rules for Prometheus. Each has a page in `docs/runbook`."""

from __future__ import annotations

import json

from queue_middleware.jobs.struct import Struct

from .catalog import (
    DATABASE_SIZE,
    DISK_FLOOR,
    DISK_FREE,
    FINISHED,
    GIVEN_UP,
    OLDEST,
    OUTAGES,
    PROCESSES,
    QUEUE_LIMIT,
    RECEIVERS,
    REQUESTS,
    RESCUED,
    SLOTS_STUCK,
    WAIT,
    WEBHOOK_OLDEST,
)

RUNBOOK = "https://github.com/queue-middleware/queue-middleware/blob/main/docs/runbook/"
"""Where the pages of the alerts are."""
_LARGEST_WAL = 256 * 2**20
"""Bytes; the write-ahead log is truncated at a quarter of it, unless a reader keeps an old snapshot open."""


class Alert(Struct, frozen=True):
    """One rule."""

    name: str
    expression: str
    minutes: int
    """For which the expression has to hold."""
    severity: str
    """`page` if an operator is needed now, otherwise `ticket`."""
    summary: str

    @property
    def page(self) -> str:
        """The name of its page in the runbook."""
        return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in self.name).lstrip("-") + ".md"


def alerts(slowest_wait: float = 300.0) -> tuple[Alert, ...]:
    """All rules. `slowest_wait`: seconds that 5 % of the requests may wait for their start."""
    finished, failed = f"rate({FINISHED.full_name}[10m])", f'rate({FINISHED.full_name}{{outcome=~"5xx|failed"}}[10m])'
    return (*_of_requests(finished, failed, slowest_wait), *_of_webhooks(), *_of_the_service())


def _of_requests(finished: str, failed: str, slowest_wait: float) -> tuple[Alert, ...]:
    return (
        Alert(
            "QueueStands",
            f"max({OLDEST.full_name}) > 300 unless sum(increase({FINISHED.full_name}[5m])) > 0",
            5, "page", "Requests wait, and none has ended for 5 minutes.",
        ),
        Alert(
            "QueueSlow",
            f"histogram_quantile(0.95, sum by (le, route) (rate({WAIT.full_name}_bucket[10m]))) > {slowest_wait:g}",
            10, "ticket", "Requests of a route wait long for their start.",
        ),
        Alert(
            "QueueNearlyFull",
            f'sum(max by (route) ({REQUESTS.full_name}{{state="queued"}})) > 0.8 * max({QUEUE_LIMIT.full_name})',
            5, "page", "The queue is filled to more than 80 % of max_queued; when it is full, submissions are refused.",
        ),
        Alert(
            "RequestsFail",
            f"sum by (route) ({failed}) > 0.05 * sum by (route) ({finished})",
            10, "ticket", "More than 5 % of the requests of a route fail.",
        ),
        Alert(
            "AttemptsLost",
            f"sum(increase({RESCUED.full_name}[15m])) > 0",
            0, "ticket", "A process died or hung while it worked on requests.",
        ),
        Alert("SlotsStuck", f"{SLOTS_STUCK.full_name} > 0", 10, "ticket", "Code of ended attempts still runs."),
    )  # fmt: skip


def _of_webhooks() -> tuple[Alert, ...]:
    return (
        Alert("WebhooksGivenUp", f"increase({GIVEN_UP.full_name}[15m]) > 0", 0, "ticket", "Webhooks were given up."),
        Alert("ReceiversOpen", f'{RECEIVERS.full_name}{{health="open"}} > 0', 30, "ticket", "Receivers refuse webhooks."),
        Alert("WebhookLag", f"{WEBHOOK_OLDEST.full_name} > 300", 10, "ticket", "Due webhooks are not sent."),
    )


def _of_the_service() -> tuple[Alert, ...]:
    return (
        Alert(
            "DiskNearFloor",
            f"{DISK_FREE.full_name} < 1.5 * {DISK_FLOOR.full_name}",
            5, "page", "Little disk is free; below the floor submissions are refused.",
        ),
        Alert(
            "WalGrows",
            f'{DATABASE_SIZE.full_name}{{part="wal"}} > {_LARGEST_WAL}',
            15, "ticket", "The write-ahead log is not truncated.",
        ),
        Alert("NoProcess", f"absent({PROCESSES.full_name} > 0)", 5, "page", "No process runs the queue, or none is scraped."),
        Alert(
            # `ready` of the application is called by anyone who checks the health; the health checks report its errors.
            "StoreOutage", f'sum(increase({OUTAGES.full_name}{{where!="ready"}}[5m])) > 10',
            5, "page", "Services of the queue keep failing.",
        ),
    )  # fmt: skip


def alert_rules(slowest_wait: float = 300.0) -> str:
    """The rules as a file for `rule_files` of Prometheus; `alerts` describes the argument. YAML, of which JSON is a part."""
    rules = [
        {
            "alert": alert.name,
            "expr": alert.expression,
            "for": f"{alert.minutes}m",
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "runbook_url": RUNBOOK + alert.page},
        }
        for alert in alerts(slowest_wait)
    ]
    return json.dumps({"groups": [{"name": "queue_middleware", "rules": rules}]}, indent=2) + "\n"
