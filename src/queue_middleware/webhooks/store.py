"""The port of webhooks: a transactional outbox. A webhook is committed in one transaction with the result that it reports.

Each docstring is a contract that the conformance suite checks. A method that changes something has committed it durably when
it returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from typing import Protocol

from queue_middleware.jobs.models import Claim, JobResult, StoredResponse

from .circuit import AttemptOutcome
from .models import (
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


class DirectSender(Protocol):
    """Sends webhooks that are claimed in the transaction that completes their jobs. Called in the event loop."""

    def reserve(self, claim: Claim, response: StoredResponse) -> DeliveryClaim | None:
        """Take a slot for the webhook of a job that is about to be completed. None if it has to wait for `WebhookStore.claim`.

        The returned claim is that of the first attempt, without the id of the delivery. `start` or `give_back` follows.
        """

    def start(self, delivery: DeliveryClaim, result: JobResult) -> None:
        """Send it: it is claimed. `result` has no times."""

    def give_back(self, delivery: DeliveryClaim) -> None:
        """Free the slot: the job was not completed, or its webhook has to wait for `WebhookStore.claim`."""


class WebhookStore(Protocol):
    """One process's view of the webhooks of a shared queue."""

    # --- for the dispatcher

    def send_directly(self, sender: DirectSender | None) -> None:
        """From now on claim the webhooks of completed jobs in the same transaction, if `sender` has a slot for them.

        Only if the flow and the host are healthy and nothing else is due at the host: the order and the turns of `claim`
        stay as they are. None ends it.
        """

    async def claim(self, capacity: Capacity) -> Claimed:
        """Start due deliveries, as many as `fairness.allocate` gives to each flow; within one flow the longest due first.

        Each delivery starts a lease and comes with the result that it reports. Flows of one host take turns. A flow or a host
        whose circuit is open, or that is at its limit, delays no other, however many of its deliveries are due. Webhooks of one
        request are sent in order, never two at once (`webhooks.order`).
        """

    def settle(
        self,
        delivery: DeliveryClaim,
        attempt: DeliveryAttempt,
        *,
        delivered: bool,
        retry_in: float | None,
        outcome: AttemptOutcome | None = None,
    ) -> Awaitable[Settled]:
        """Record an attempt and the new state of its delivery: delivered, due again in `retry_in` seconds, or dead.

        A webhook about an event before the end of the request is superseded, not retried, if there is a newer one. `outcome` is
        what the attempt shows about the receiver; `circuit.next_health` and `circuit.next_host_health` derive its health.
        """

    async def release(self, claimed: Collection[DeliveryClaim], *, due_in: float = 0.0) -> None:
        """Hand back claimed deliveries that were not started, due as before or in `due_in` seconds. The attempt is not charged.

        If one of them was to be the probe of an open circuit, the next probe may be sent then.
        """

    # --- for operators

    async def records(self, delivery_filter: DeliveryFilter, *, after: int = 0, limit: int = 100) -> list[DeliveryRecord]:
        """The selected webhooks in the order of their creation, starting after the id `after`.

        Raises `UnknownRequest` for a request or delivery that does not exist.
        """

    async def attempts(self, delivery_id: int) -> list[DeliveryAttempt]:
        """All recorded attempts of a delivery, in order."""

    async def redeliver(self, ids: Collection[int], operator: str, target: str) -> int:
        """Make these webhooks due now with a new schedule; returns how many. Those that are being sent are not changed.

        Receivers whose circuit is open are probed at once. `operator` and `target` are recorded, in the same transaction.
        """

    async def probe(self, host: str, operator: str) -> int:
        """Send one webhook now for each open circuit of this host and its flows, whatever its schedule; returns how many.

        0 if no circuit is open, or if nothing is pending. `host` is as in `DeliveryRecord.host`. A probe is an ordinary
        attempt: it is charged, and its outcome closes the circuit or extends the pause. `operator` is recorded, in the same
        transaction.
        """

    async def receivers(self, healths: Collection[ReceiverHealth], limit: int = 1000) -> list[FlowRecord]:
        """Flows with one of these healths, by host and submitter; a flow of a host with an open circuit counts as `OPEN`."""
