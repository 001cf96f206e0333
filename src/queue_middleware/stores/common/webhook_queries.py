"""Reads webhooks and receivers for operators on a reading connection."""

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
    FlowRecord,
    ReceiverHealth,
)

from .transaction import Queries

_END_OF_TIME = 2**62
_MOST_PENDING = 1000


def deliveries(queries: Queries, delivery_filter: DeliveryFilter, after: int, limit: int) -> list[DeliveryRecord]:
    """The selected webhooks. Raises `UnknownRequest`."""
    if delivery_filter.delivery_id is not None:
        rows = queries.all("delivery", {"id": delivery_filter.delivery_id})
        if not rows:
            raise UnknownRequest(f"there is no delivery {delivery_filter.delivery_id}")
    elif delivery_filter.request_id is not None:
        key = _key(queries, delivery_filter.request_id)
        rows = queries.all("deliveries_of_request", {"key": key})
    else:
        return [_record(*row) for row in _in_range(queries, delivery_filter, after, limit)]
    records = [_record(*row) for row in rows if row[0] > after]
    return [record for record in records if _is_selected(record, delivery_filter)][:limit]


def _in_range(queries: Queries, delivery_filter: DeliveryFilter, after: int, limit: int) -> list[tuple[Any, ...]]:
    parameters = {
        "after": after,
        "since": 0 if delivery_filter.since is None else delivery_filter.since,
        "until": _END_OF_TIME if delivery_filter.until is None else delivery_filter.until,
        "host": delivery_filter.host,
        "limit": limit,
    }
    return queries.all("dead_deliveries" if delivery_filter.dead_only else "all_deliveries", parameters)


def _is_selected(record: DeliveryRecord, delivery_filter: DeliveryFilter) -> bool:
    return (
        (record.state is DeliveryState.DEAD or not delivery_filter.dead_only)
        and (delivery_filter.host is None or record.host == delivery_filter.host)
        and (delivery_filter.since is None or record.since >= delivery_filter.since)
        and (delivery_filter.until is None or record.since < delivery_filter.until)
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
    """The recorded attempts of one delivery, in order."""
    rows = queries.all("delivery_attempts", (delivery_id,))
    return [DeliveryAttempt(*row) for row in rows]


def receivers(queries: Queries, healths: Collection[ReceiverHealth], limit: int) -> list[FlowRecord]:
    """Flows with one of these healths."""
    parameters = {"healths": list(healths), "limit": limit, "most": _MOST_PENDING}
    return [FlowRecord(host, ReceiverHealth(health), *rest) for host, health, *rest in queries.all("receivers", parameters)]
