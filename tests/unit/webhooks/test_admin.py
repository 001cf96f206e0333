from datetime import UTC, datetime

import pytest

from queue_middleware.errors import BadRequest
from queue_middleware.events import Operated, Redelivered
from queue_middleware.jobs.audit import Action
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
        self.acts: list[tuple[str, str]] = []

    async def records(self, which, *, after, limit):
        self.calls.append((which, after, limit))
        return self.pages.pop(0) if self.pages else []

    async def redeliver(self, ids, operator, target):
        self.again.append(list(ids))
        self.acts.append((operator, target))
        return len(ids)

    async def probe(self, host, operator):
        self.acts.append((operator, host))
        return 2 if host == "a.example" else 0

    async def receivers(self, standings, limit):
        self.standings = list(standings)
        return []


def admin(outbox: Outbox, events: list[object] | None = None) -> WebhookAdmin:
    return WebhookAdmin(outbox, [].append if events is None else events.append)


async def test_all_matching_deliveries_are_redelivered_in_batches():
    outbox, events = Outbox([record(1), record(2)], [record(5)]), []
    count = await admin(outbox, events).redeliver(make_filter(host="a.example", since=datetime(2027, 1, 15, 8, tzinfo=UTC)))
    assert count == 3
    assert outbox.again == [[1, 2], [5]]
    assert [after for _, after, _ in outbox.calls] == [0, 2, 5]
    target = '{"since":1800000000000,"host":"a.example"}'
    assert events == [Redelivered(3), Operated("application", Action.REDELIVER, target, 3)]
    assert outbox.acts == [("application", target)] * 2


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
    assert await admin(outbox).redeliver(make_filter(**selection)) == 0
    assert outbox.calls[0][0].dead_only is dead


async def test_times_are_milliseconds():
    outbox = Outbox()
    since, until = datetime(2027, 1, 15, 8, 0, tzinfo=UTC), datetime(2027, 1, 15, 8, 0, 1, tzinfo=UTC)
    await admin(outbox).deliveries(make_filter(since=since, until=until), after=7, limit=9)
    assert outbox.calls == [(DeliveryFilter(since=1_800_000_000_000, until=1_800_000_001_000), 7, 9)]


async def test_events_are_redelivered_only_by_their_own_id():
    outbox = Outbox([record(1, WebhookKind.STARTED), record(2)])
    await admin(outbox).redeliver(make_filter(request_id="id"))
    assert outbox.again == [[2]]
    outbox = Outbox([record(1, WebhookKind.STARTED)])
    await admin(outbox).redeliver(make_filter(delivery_id=1))
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
        await admin(outbox).redeliver(make_filter(**selection))
    assert outbox.calls == outbox.again == []


async def test_unhealthy_receivers_are_listed_by_default():
    outbox = Outbox()
    await admin(outbox).receivers()
    assert outbox.standings == list(UNHEALTHY)
    await admin(outbox).receivers([ReceiverHealth.HEALTHY])
    assert outbox.standings == [ReceiverHealth.HEALTHY]


@pytest.mark.parametrize(("selection", "target"), [({"request_id": "id"}, "id"), ({"delivery_id": 7}, "7")])
async def test_one_request_or_webhook_is_recorded_by_its_id(selection, target):
    outbox = Outbox([record(7)])
    assert await admin(outbox).redeliver(make_filter(**selection), "alice") == 1
    assert outbox.acts == [("alice", target)]


async def test_probes_are_reported_if_any_was_sent():
    outbox, events = Outbox(), []
    assert await admin(outbox, events).probe("A.example", "alice") == 2
    assert outbox.acts == [("alice", "a.example")]
    assert events == [Operated("alice", Action.PROBE, "a.example", 2)]
    assert await admin(outbox, events).probe("b.example") == 0
    assert len(events) == 1
