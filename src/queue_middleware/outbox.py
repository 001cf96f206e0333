"""The port of webhooks: a transactional outbox. What is due was committed with the result that it tells of (`store.Store`).

Values in, values out; each docstring is a contract that the store suite checks. A verb that changes something has committed it,
durably, when it returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from typing import Protocol

from .circuit import Outcome
from .webhooks import Attempt, Claimed, Delivery, DeliveryFilter, DeliveryRecord, Receiver, Room, Settled, Standing


class Outbox(Protocol):
    """One process's view of the webhooks of a shared queue."""

    # --- the delivery engine's verbs

    async def claim(self, room: Room) -> Claimed:
        """Start due deliveries, as many as `circuit.share` gives to each flow; of one flow the longest due first.

        Each begins a lease, and brings the result that it tells of. Flows of one host take turns. A flow or a host that is left
        alone, or that has all it may have, makes no other wait, however much is due there. Webhooks of one request go out in
        order, never two at once.
        """

    def settle(
        self, delivery: Delivery, attempt: Attempt, *, delivered: bool, retry_in: float | None, outcome: Outcome | None = None
    ) -> Awaitable[Settled]:
        """Record an attempt and what follows: delivered, due again in `retry_in` seconds, or dead.

        One that told of something before the end is superseded instead of repeated, once there is newer news. `outcome` is
        what the attempt says about the receiver; `circuit.judge` and `circuit.judge_host` say what follows from it.
        """

    async def release(self, tokens: Collection[int], *, due_in: float = 0.0) -> None:
        """Hand back what this owner was given and has not begun, due again in so many seconds, the attempt not charged."""

    # --- the operator's verbs

    async def records(self, which: DeliveryFilter, *, after: int = 0, limit: int = 100) -> list[DeliveryRecord]:
        """The webhooks that are meant, in the order in which they were made, from the first whose id is larger than `after`.

        Raises `UnknownRequest` for a request or delivery that is not there.
        """

    async def attempts(self, delivery_id: int) -> list[Attempt]:
        """All attempts that were recorded of a delivery, in order."""

    async def redeliver(self, ids: Collection[int]) -> int:
        """Make these webhooks due now, with the whole schedule before them; how many. What is being sent is left alone.

        Their hosts are probed at once where they were left alone.
        """

    async def receivers(self, standings: Collection[Standing], limit: int = 1000) -> list[Receiver]:
        """Flows of these standings, by host and submitter; all of a host that is left alone count as `OPEN`."""
