"""The webhook port, the same for every database: each method is one operation or one read."""

from __future__ import annotations

from collections.abc import Awaitable, Collection

from queue_middleware.errors import QueueError
from queue_middleware.jobs.ids import SEQUENCE_BITS
from queue_middleware.jobs.models import Claim, Job, JobResult, JobState, StoredResponse, WebhookKind
from queue_middleware.jobs.store import OnResult
from queue_middleware.settings import Settings
from queue_middleware.webhooks.circuit import AttemptOutcome, give_up_after
from queue_middleware.webhooks.models import (
    Capacity,
    Claimed,
    DeliveryAttempt,
    DeliveryClaim,
    DeliveryFilter,
    DeliveryRecord,
    FlowRecord,
    ReceiverHealth,
    Settled,
)
from queue_middleware.webhooks.store import DirectSender

from . import deliveries, job_queries, webhook_queries
from .access import Read, Write


class CommonWebhookStore:
    """`webhooks.store.WebhookStore` on the operations and reads of a store."""

    def __init__(self, settings: Settings, write: Write, read: Read, read_many: Read) -> None:
        self._give_up_after_ms = round(give_up_after(settings.webhook_schedule) * 1000)
        self._write = write
        self._read = read
        self._read_many = read_many
        self._sender: DirectSender | None = None

    # --- in the transaction that completes a job

    def send_directly(self, sender: DirectSender | None) -> None:
        """Claim webhooks for which `sender` has a slot in the transaction that completes their jobs."""
        self._sender = sender

    def reserve(
        self, claim: Claim, response: StoredResponse, on_result: OnResult[bool]
    ) -> tuple[deliveries.Reservation, OnResult[bool]] | None:
        """Reserve a slot for the webhook of a job that is about to be completed. None if it has none, or if no slot is free.

        Pass the reservation to `deliveries.complete_and_claim`, and its result to the returned function, which calls
        `on_result`.
        """
        sender = self._sender
        if sender is None or claim.webhook is None or (delivery := sender.reserve(claim, response)) is None:
            return None
        reservation = deliveries.Reservation(delivery)

        def report(result: bool | QueueError) -> None:
            try:
                if result is True and reservation.delivery_id is not None:
                    sender.start(delivery.replace(id=reservation.delivery_id), _result_of(claim, response))
                else:
                    sender.give_back(delivery)
            finally:
                on_result(result)

        return reservation, report

    # --- for the dispatcher

    async def claim(self, capacity: Capacity) -> Claimed:
        """Start due deliveries, then read the results that the webhooks report."""
        claimed = await self._write(deliveries.claim, capacity)
        keys = [delivery.key for delivery in claimed.deliveries if delivery.kind is WebhookKind.COMPLETED]
        if not keys:
            return claimed
        try:
            return claimed.replace(results=await self._read(lambda queries: job_queries.results(queries, keys)))
        except QueueError:
            await self.release(claimed.deliveries)
            raise

    def settle(
        self,
        delivery: DeliveryClaim,
        attempt: DeliveryAttempt,
        *,
        delivered: bool,
        retry_in: float | None,
        outcome: AttemptOutcome | None = None,
    ) -> Awaitable[Settled]:
        """Record an attempt and the new state of its delivery."""
        wait = None if retry_in is None else round(retry_in * 1000)
        return self._write(deliveries.settle, (delivery, attempt, delivered, wait, outcome, self._give_up_after_ms))

    async def release(self, claimed: Collection[DeliveryClaim], *, due_in: float = 0.0) -> None:
        """Release claimed deliveries."""
        await self._write(deliveries.release, (claimed, round(due_in * 1000)))

    # --- for operators

    async def records(self, delivery_filter: DeliveryFilter, *, after: int = 0, limit: int = 100) -> list[DeliveryRecord]:
        """Read the selected webhooks."""
        return await self._read_many(lambda queries: webhook_queries.deliveries(queries, delivery_filter, after, limit))

    async def attempts(self, delivery_id: int) -> list[DeliveryAttempt]:
        """Read the attempts of a delivery."""
        return await self._read_many(lambda queries: webhook_queries.attempts(queries, delivery_id))

    async def redeliver(self, ids: Collection[int], operator: str, target: str) -> int:
        """Make webhooks due again."""
        return await self._write(deliveries.redeliver, (ids, operator, target))

    async def probe(self, host: str, operator: str) -> int:
        """Send a probe now."""
        return await self._write(deliveries.probe, (host, operator))

    async def receivers(self, healths: Collection[ReceiverHealth], limit: int = 1000) -> list[FlowRecord]:
        """Read the health of flows."""
        return await self._read_many(lambda queries: webhook_queries.receivers(queries, healths, limit))


def _result_of(claim: Claim, response: StoredResponse) -> JobResult:
    """What is stored about a job that has just been completed, without the times."""
    created_at = claim.key >> SEQUENCE_BITS
    job = Job(
        claim.key, claim.request_id, JobState.COMPLETED, claim.attempt, None, None, created_at, None, None, response.status,
        None, claim.client,
    )  # fmt: skip
    return JobResult(job, response)
