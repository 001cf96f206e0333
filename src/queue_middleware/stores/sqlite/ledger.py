"""What operators ask about webhooks; each runs on the reading connection, and leaves no cursor open."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from typing import Any

from queue_middleware.errors import UnknownRequest
from queue_middleware.models import WebhookKind
from queue_middleware.request_id import format_request_id, parse_request_id
from queue_middleware.webhooks import Attempt, DeliveryFilter, DeliveryRecord, DeliveryState, Receiver, Standing

from .queries import SQL

_FAR = 2**62
_MOST_PENDING = 1000


def deliveries(connection: sqlite3.Connection, which: DeliveryFilter, after: int, limit: int) -> list[DeliveryRecord]:
    """The webhooks that are meant. Raises `UnknownRequest`."""
    if which.delivery_id is not None:
        rows = _all(connection, "delivery", {"id": which.delivery_id})
        if not rows:
            raise UnknownRequest(f"there is no delivery {which.delivery_id}")
    elif which.request_id is not None:
        key = _key(connection, which.request_id)
        rows = _all(connection, "deliveries_of_request", {"key": key})
    else:
        return [_record(*row) for row in _in_range(connection, which, after, limit)]
    records = [_record(*row) for row in rows if row[0] > after]
    return [one for one in records if _is_meant(one, which)][:limit]


def _in_range(connection: sqlite3.Connection, which: DeliveryFilter, after: int, limit: int) -> list[tuple[Any, ...]]:
    asked = {
        "after": after,
        "since": 0 if which.since is None else which.since,
        "until": _FAR if which.until is None else which.until,
        "host": which.host,
        "limit": limit,
    }
    return _all(connection, "dead_deliveries" if which.dead_only else "all_deliveries", asked)


def _is_meant(record: DeliveryRecord, which: DeliveryFilter) -> bool:
    return (
        (record.state is DeliveryState.DEAD or not which.dead_only)
        and (which.host is None or record.host == which.host)
        and (which.since is None or record.since >= which.since)
        and (which.until is None or record.since < which.until)
    )


def _key(connection: sqlite3.Connection, request_id: str) -> int:
    first, tail = parse_request_id(request_id)
    rows = _all(connection, "find", {"first": first, "tail": tail})
    if not rows:
        raise UnknownRequest(f"there is no request {request_id}")
    return int(rows[0][0])


def _record(number: int, key: int, tail: bytes, kind: str, host: str, url: str, state: str, *rest: int) -> DeliveryRecord:
    return DeliveryRecord(number, format_request_id(key, tail), WebhookKind(kind), host, url, DeliveryState(state), *rest)


def attempts(connection: sqlite3.Connection, delivery_id: int) -> list[Attempt]:
    """All attempts that were recorded."""
    rows = connection.execute(SQL["attempts"], (delivery_id,)).fetchall()
    return [Attempt(*row) for row in rows]


def receivers(connection: sqlite3.Connection, standings: Collection[Standing], limit: int) -> list[Receiver]:
    """Flows of these standings."""
    asked = {"standings": json.dumps(list(standings)), "limit": limit, "most": _MOST_PENDING}
    return [Receiver(host, Standing(standing), *rest) for host, standing, *rest in _all(connection, "receivers", asked)]


def _all(connection: sqlite3.Connection, name: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    return connection.execute(SQL[name], parameters).fetchall()
