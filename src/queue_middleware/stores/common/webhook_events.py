"""Creates webhooks about the start and the progress of a request, if its submission asked for these events."""

from __future__ import annotations

import json
from typing import Any

from queue_middleware.jobs.models import Claim, Progress, WebhookKind
from queue_middleware.jobs.store import Topic
from queue_middleware.webhooks.models import receiver_host

from .transaction import Transaction

_PAUSE = 500
"""Milliseconds between two webhooks about the progress of one request."""


def add_started(transaction: Transaction, claim: Claim) -> None:
    """Create the webhook about the start of the first attempt. Idempotent."""
    if claim.webhook is not None and WebhookKind.STARTED in claim.webhook_kinds:
        _add(transaction, "insert_started_delivery", claim.key, claim.webhook, {"at": transaction.now})


def add_progress(transaction: Transaction, claim: Claim, progress: Progress) -> None:
    """Update the progress webhook that was not sent yet, or create one, due half a second after the previous one."""
    if claim.webhook is None or WebhookKind.PROGRESS not in claim.webhook_kinds:
        return
    data = {"at": transaction.now, "fraction": progress.fraction, "stage": progress.stage}
    if not transaction.change("update_progress_delivery", {"key": claim.key, "data": json.dumps(data)}):
        _add(transaction, "insert_progress_delivery", claim.key, claim.webhook, data, pause=_PAUSE)


def _add(transaction: Transaction, name: str, key: int, url: str, data: dict[str, Any], **more: int) -> None:
    row = {"key": key, "url": url, "host": receiver_host(url), "data": json.dumps(data), "now": transaction.now, **more}
    transaction.change(name, row)
    transaction.topics.add(Topic.DELIVERY)
