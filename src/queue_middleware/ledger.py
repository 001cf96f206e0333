"""What operators ask about webhooks, and how they have them delivered again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, TypedDict, Unpack, cast

from .errors import BadRequest
from .events import Announce, Redelivered
from .hosts import canonical_authority
from .models import WebhookKind
from .outbox import Outbox
from .webhooks import Attempt, DeliveryRecord, Receiver, Standing, Which

UNWELL = (Standing.OPEN, Standing.FAILING, Standing.SLOW)
_TOGETHER = 500
"""Rows of one transaction."""


class Selection(TypedDict, total=False):
    """Which webhooks are meant. What is not given does not narrow."""

    request_id: str
    delivery_id: int
    host: str
    """As `DeliveryRecord.host` has it."""
    since: datetime
    """First due from then on. With its time zone, as `until`."""
    until: datetime
    dead_only: bool
    """Only those that were given up. Unless it is said, so it is where neither a request nor a delivery is named."""


class Ledger:
    """The verbs behind `queue.deliveries`, `queue.redeliver` and the like."""

    def __init__(self, outbox: Outbox, announce: Announce) -> None:
        self._outbox = outbox
        self._announce = announce

    async def deliveries(self, *, after: int = 0, limit: int = 100, **selection: Unpack[Selection]) -> list[DeliveryRecord]:
        """Webhooks in the order in which they were made, those with an id larger than `after`. Raises `BadRequest`."""
        return await self._outbox.records(_which(selection, dead_only=False), after=after, limit=limit)

    async def attempts(self, delivery_id: int) -> list[Attempt]:
        """The attempts that were recorded of a delivery."""
        return await self._outbox.attempts(delivery_id)

    async def receivers(self, standings: Collection[Standing] = UNWELL, limit: int = 1000) -> list[Receiver]:
        """Hosts of these standings; unless they are named, those that are not well."""
        return await self._outbox.receivers(standings, limit)

    async def redeliver(self, **selection: Unpack[Selection]) -> int:
        """Deliver again, each with the whole schedule before it; how many. Raises `BadRequest`, `UnknownRequest`."""
        if not selection.keys() - {"dead_only"}:
            raise BadRequest("say which webhooks: request_id, delivery_id, host, since or until")
        which = _which(selection, dead_only=not selection.keys() & {"request_id", "delivery_id"})
        count = after = 0
        while records := await self._outbox.records(which, after=after, limit=_TOGETHER):
            after = records[-1].id
            # How a request went on is no news any more, unless somebody names just that.
            wanted = [one.id for one in records if one.kind is WebhookKind.COMPLETED or which.delivery_id is not None]
            count += await self._outbox.redeliver(wanted)
        if count:
            self._announce(Redelivered(count))
        return count


def _which(selection: Selection, *, dead_only: bool) -> Which:
    given = cast("Mapping[str, Any]", selection)
    if strange := given.keys() - Selection.__annotations__.keys():
        raise BadRequest(f"webhooks are not selected by {min(strange)!r}, but by {', '.join(Selection.__annotations__)}")
    return Which(
        request_id=given.get("request_id"),
        delivery_id=given.get("delivery_id"),
        since=_milliseconds(given, "since"),
        until=_milliseconds(given, "until"),
        host=None if given.get("host") is None else canonical_authority(given["host"]),
        dead=given.get("dead_only", dead_only),
    )


def _milliseconds(given: Mapping[str, Any], name: str) -> int | None:
    moment = given.get(name)
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise BadRequest(f"{name} is {moment!r}; it takes a datetime with its time zone, e.g. datetime.now(UTC)")
    return round(moment.timestamp() * 1000)
