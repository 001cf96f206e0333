from datetime import UTC, datetime

import pytest

from queue_middleware.errors import BadRequest
from queue_middleware.events import Redelivered
from queue_middleware.jobs.models import WebhookKind
from queue_middleware.webhooks.admin import UNHEALTHY, WebhookAdmin, make_filter
from queue_middleware.webhooks.models import DeliveryFilter, DeliveryRecord, DeliveryState, ReceiverHealth


def record(number: int, kind: WebhookKind = WebhookKind.COMPLETED) -> DeliveryRecord:
    return DeliveryRecord(number, "id", kind, "a.example", "https://a.example/", DeliveryState.DEAD, 8, 0, 0)


class Outbox:
    """Records its calls, and returns `pages` of records."""

    def __init__(self, *pages: list[DeliveryRecord]) -> None:
        self.pages = list(pages)
        self.calls: list[tuple[DeliveryFilter, int, int]] = []
        self.again: list[list[int]] = []
        self.standings: list[ReceiverHealth] = []

    async def records(self, which, *, after, limit):
        self.calls.append((which, after, limit))
        return self.pages.pop(0) if self.pages else []

    async def redeliver(self, ids):
        self.again.append(list(ids))
        return len(ids)

    async def receivers(self, standings, limit):
        self.standings = list(standings)
        return []


async def test_all_matching_deliveries_are_redelivered_in_batches():
    outbox, events = Outbox([record(1), record(2)], [record(5)]), []
    count = await WebhookAdmin(outbox, events.append).redeliver(make_filter(host="a.example"))
    assert count == 3
    assert outbox.again == [[1, 2], [5]]
    assert [after for _, after, _ in outbox.calls] == [0, 2, 5]
    assert events == [Redelivered(3)]


@pytest.mark.parametrize(
    ("selection", "dead"),
    [
        ({"host": "a.example"}, True),
        ({"since": datetime(2027, 1, 1, tzinfo=UTC)}, True),
        ({"host": "a.example", "dead_only": False}, False),
        ({"request_id": "id"}, False),
        ({"delivery_id": 1}, False),
        ({"delivery_id": 1, "dead_only": True}, True),
    ],
)
async def test_only_dead_deliveries_unless_named_by_id(selection, dead):
    outbox = Outbox()
    assert await WebhookAdmin(outbox, lambda _: None).redeliver(make_filter(**selection)) == 0
    assert outbox.calls[0][0].dead_only is dead


async def test_times_are_milliseconds():
    outbox = Outbox()
    since, until = datetime(2027, 1, 15, 8, 0, tzinfo=UTC), datetime(2027, 1, 15, 8, 0, 1, tzinfo=UTC)
    await WebhookAdmin(outbox, lambda _: None).deliveries(make_filter(since=since, until=until), after=7, limit=9)
    assert outbox.calls == [(DeliveryFilter(since=1_800_000_000_000, until=1_800_000_001_000), 7, 9)]


async def test_events_are_redelivered_only_by_their_own_id():
    outbox = Outbox([record(1, WebhookKind.STARTED), record(2)])
    await WebhookAdmin(outbox, lambda _: None).redeliver(make_filter(request_id="id"))
    assert outbox.again == [[2]]
    outbox = Outbox([record(1, WebhookKind.STARTED)])
    await WebhookAdmin(outbox, lambda _: None).redeliver(make_filter(delivery_id=1))
    assert outbox.again == [[1]]


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        ({}, "no webhooks are selected"),
        ({"dead_only": True}, "no webhooks are selected"),
        ({"since": "yesterday"}, "since is 'yesterday'; pass a datetime"),
        ({"until": datetime(2027, 1, 1)}, "until is .*; pass a datetime with a time zone"),
    ],
)
async def test_invalid_criteria_are_refused(selection, sentence):
    outbox = Outbox()
    with pytest.raises(BadRequest, match=sentence):
        await WebhookAdmin(outbox, lambda _: None).redeliver(make_filter(**selection))
    assert outbox.calls == outbox.again == []


async def test_unhealthy_receivers_are_listed_by_default():
    outbox = Outbox()
    await WebhookAdmin(outbox, lambda _: None).receivers()
    assert outbox.standings == list(UNHEALTHY)
    await WebhookAdmin(outbox, lambda _: None).receivers([ReceiverHealth.HEALTHY])
    assert outbox.standings == [ReceiverHealth.HEALTHY]
