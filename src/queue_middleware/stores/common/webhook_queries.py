"""Reads of webhooks and receivers for operators, on a reading connection."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from queue_middleware.errors import UnknownRequest
from queue_middleware.jobs.ids import format_request_id, parse_request_id
from queue_middleware.jobs.models import WebhookKind
from queue_middleware.webhooks.models import (
    DeliveryAttempt,
    DeliveryFilter,
    DeliveryRecord,
    DeliveryState,
    HostHealth,
    Receiver,
)

from .transaction import Queries

_FAR = 2**62
_MOST_PENDING = 1000


def deliveries(queries: Queries, which: DeliveryFilter, after: int, limit: int) -> list[DeliveryRecord]:
    """The selected webhooks. Raises `UnknownRequest`."""
    if which.delivery_id is not None:
        rows = queries.all("delivery", {"id": which.delivery_id})
        if not rows:
            raise UnknownRequest(f"there is no delivery {which.delivery_id}")
    elif which.request_id is not None:
        key = _key(queries, which.request_id)
        rows = queries.all("deliveries_of_request", {"key": key})
    else:
        return [_record(*row) for row in _in_range(queries, which, after, limit)]
    records = [_record(*row) for row in rows if row[0] > after]
    return [one for one in records if _is_meant(one, which)][:limit]


def _in_range(queries: Queries, which: DeliveryFilter, after: int, limit: int) -> list[tuple[Any, ...]]:
    asked = {
        "after": after,
        "since": 0 if which.since is None else which.since,
        "until": _FAR if which.until is None else which.until,
        "host": which.host,
        "limit": limit,
    }
    return queries.all("dead_deliveries" if which.dead_only else "all_deliveries", asked)


def _is_meant(record: DeliveryRecord, which: DeliveryFilter) -> bool:
    return (
        (record.state is DeliveryState.DEAD or not which.dead_only)
        and (which.host is None or record.host == which.host)
        and (which.since is None or record.since >= which.since)
        and (which.until is None or record.since < which.until)
    )


def _key(queries: Queries, request_id: str) -> int:
    first, tail = parse_request_id(request_id)
    rows = queries.all("find_job", {"first": first, "tail": tail})
    if not rows:
        raise UnknownRequest(f"there is no request {request_id}")
    return int(rows[0][0])


def _record(number: int, key: int, tail: bytes, kind: str, host: str, url: str, state: str, *rest: int) -> DeliveryRecord:
    return DeliveryRecord(number, format_request_id(key, tail), WebhookKind(kind), host, url, DeliveryState(state), *rest)


def attempts(queries: Queries, delivery_id: int) -> list[DeliveryAttempt]:
    """All attempts that were recorded."""
    rows = queries.all("delivery_attempts", (delivery_id,))
    return [DeliveryAttempt(*row) for row in rows]


def receivers(queries: Queries, standings: Collection[HostHealth], limit: int) -> list[Receiver]:
    """Flows of these standings."""
    asked = {"standings": list(standings), "limit": limit, "most": _MOST_PENDING}
    return [Receiver(host, HostHealth(standing), *rest) for host, standing, *rest in queries.all("receivers", asked)]
