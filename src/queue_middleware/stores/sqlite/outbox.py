"""The port of webhooks on SQLite: the verbs, each one call to the writer or to the reading connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from queue_middleware.circuit import Outcome, patience
from queue_middleware.errors import QueueError
from queue_middleware.models import WebhookKind
from queue_middleware.settings import Settings
from queue_middleware.webhooks import (
    Attempt,
    Claimed,
    Delivery,
    DeliveryFilter,
    DeliveryRecord,
    Receiver,
    Room,
    Settled,
    Standing,
)

from . import deliveries, ledger, reading
from .writer import Operation, P, R


class Write(Protocol):
    """Puts an operation into the next transaction."""

    def __call__(self, operation: Operation[P, R], payload: P) -> Awaitable[R]:
        """Its result, when it is committed."""


class Read(Protocol):
    """Runs something on the reading connection."""

    def __call__(self, work: Callable[[sqlite3.Connection], R]) -> Awaitable[R]:
        """Its result."""


class SQLiteOutbox:
    """`outbox.Outbox` on the connections of a store."""

    def __init__(self, settings: Settings, write: Write, read: Read, read_many: Read) -> None:
        self._patience = round(patience(settings.webhook_schedule) * 1000)
        self._write = write
        self._read = read
        self._read_many = read_many

    # --- the delivery engine's verbs

    async def claim(self, room: Room) -> Claimed:
        """See `outbox.Outbox`."""
        claimed = await self._write(deliveries.claim, room)
        keys = [delivery.key for delivery in claimed.deliveries if delivery.kind is WebhookKind.COMPLETED]
        if not keys:
            return claimed
        try:
            return claimed.replace(results=await self._read(lambda connection: reading.results(connection, keys)))
        except QueueError:
            await self.release([delivery.token for delivery in claimed.deliveries])
            raise

    def settle(
        self, delivery: Delivery, attempt: Attempt, *, delivered: bool, retry_in: float | None, outcome: Outcome | None = None
    ) -> Awaitable[Settled]:
        """See `outbox.Outbox`."""
        wait = None if retry_in is None else round(retry_in * 1000)
        return self._write(deliveries.settle, (delivery, attempt, delivered, wait, outcome, self._patience))

    async def release(self, tokens: Collection[int], *, due_in: float = 0.0) -> None:
        """See `outbox.Outbox`."""
        await self._write(deliveries.release, (tokens, round(due_in * 1000)))

    # --- the operator's verbs

    async def records(self, which: DeliveryFilter, *, after: int = 0, limit: int = 100) -> list[DeliveryRecord]:
        """See `outbox.Outbox`."""
        return await self._read_many(lambda connection: ledger.deliveries(connection, which, after, limit))

    async def attempts(self, delivery_id: int) -> list[Attempt]:
        """See `outbox.Outbox`."""
        return await self._read_many(lambda connection: ledger.attempts(connection, delivery_id))

    async def redeliver(self, ids: Collection[int]) -> int:
        """See `outbox.Outbox`."""
        return await self._write(deliveries.redeliver, ids)

    async def receivers(self, standings: Collection[Standing], limit: int = 1000) -> list[Receiver]:
        """See `outbox.Outbox`."""
        return await self._read_many(lambda connection: ledger.receivers(connection, standings, limit))
