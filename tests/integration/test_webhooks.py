"""Webhooks from the submission to the receiver, and the operator's methods for them."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware, current_job
from queue_middleware.errors import BadRequest, NotRunning, UnknownRequest
from queue_middleware.events import DeliveryDead, Redelivered
from queue_middleware.verify import WebhookVerifier
from queue_middleware.webhooks.formats.user_agent import USER_AGENT
from queue_middleware.webhooks.models import DeliveryState, ReceiverHealth
from tests.support.doubles import EventRecorder
from tests.support.queue_client import connected, eventually
from tests.support.webhook_receiver import Receiver, Webhook, receiving


async def work(request: Request) -> Response:
    """Reports progress as often as the request says."""
    for step in range(steps := int(request.query_params.get("steps", 0))):
        current_job.report_progress((step + 1) / steps, "painting")
        await asyncio.sleep(0.02)
    return JSONResponse({"size": "x" * int(request.query_params.get("size", 0))})


APP = Starlette(routes=[Route("/work", work, methods=["POST"])])


def wrapped(database: Path, **options: object) -> QueueMiddleware:
    always = {"database": database, "min_free_disk": 0, "shutdown_timeout": 2, "outbound_allow": "127.0.0.1"}
    return QueueMiddleware(APP, **{**always, **options})  # type: ignore[arg-type]


def payloads(receiver: Receiver, request_id: str) -> list[dict[str, object]]:
    return [webhook.content for webhook in receiver.webhooks_for(request_id)]


async def delivered(app: QueueMiddleware, count: int) -> None:
    async def all_of_them() -> bool:
        return (await app.counts()).deliveries == {DeliveryState.DELIVERED: count}

    await eventually(all_of_them)


async def test_only_the_completed_webhook_is_sent_by_default(database: Path) -> None:
    app = wrapped(database)
    async with receiving() as receiver, connected(app) as queue:
        request_id = await queue.submit("POST", f"/work?steps=3&fal_webhook={receiver.url}/")
        await delivered(app, 1)
        assert [one["status"] for one in payloads(receiver, request_id)] == ["OK"]


async def test_started_progress_and_completed_webhooks_arrive_in_order(database: Path) -> None:
    app = wrapped(database)
    async with receiving() as receiver, connected(app) as queue:
        call = f"fal_webhook={receiver.url}/&fal_webhook_events=started,progress,completed"
        request_id = await queue.submit("POST", f"/work?steps=40&{call}")
        await eventually(lambda: [one["status"] for one in payloads(receiver, request_id)][-1:] == ["OK"])
        sent = payloads(receiver, request_id)
    kinds = [one.get("type") for one in sent]
    assert kinds[0] == "request.started"
    assert kinds[-1] is None
    assert set(kinds[1:-1]) == {"request.progress"}
    fractions = [one["progress"]["fraction"] for one in sent[1:-1]]  # type: ignore[index]
    assert fractions == sorted(fractions)
    assert len(fractions) <= 4, "40 reports in 0.8 s, and two webhooks a second are sent"
    assert len({webhook.headers["webhook-id"] for webhook in receiver.webhooks_for(request_id)}) == len(sent)


async def test_a_receiver_that_refuses_progress_webhooks_still_receives_the_completed_one(database: Path) -> None:
    app = wrapped(database, webhook_schedule="1h")

    def refuse_progress(webhook: Webhook) -> int:
        return 200 if webhook.content["status"] == "OK" else 500

    async with receiving(refuse_progress) as receiver, connected(app) as queue:
        request_id = await queue.submit(
            "POST", f"/work?steps=2&fal_webhook={receiver.url}/&fal_webhook_events=started,progress"
        )
        await eventually(lambda: any(one["status"] == "OK" for one in payloads(receiver, request_id)))


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (
            "fal_webhook=https://a.example/&fal_webhook_events=finished",
            "holds 'finished'; expected a comma-separated list of started, progress, completed",
        ),
        ("fal_webhook=https://a.example/&fal_webhook_events=", "holds ''"),
        ("fal_webhook_events=started", "needs fal_webhook, which is missing"),
    ],
)
async def test_an_unknown_event_name_is_refused(database: Path, query: str, sentence: str) -> None:
    async with connected(wrapped(database)) as queue:
        response = await queue.client.post(f"/fal/queue/submit/work?{query}")
    assert response.status_code == 400
    assert sentence in response.json()["detail"]


async def test_a_large_result_is_fetched_from_the_url_in_the_webhook(database: Path) -> None:
    app = wrapped(database, webhook_max_payload="1 KiB")
    async with receiving() as receiver, connected(app) as queue:
        request_id = await queue.submit("POST", f"/work?size=5000&fal_webhook={receiver.url}/")
        await delivered(app, 1)
        (sent,) = payloads(receiver, request_id)
        assert sent["payload"] is None
        where = str(sent["payload_error"]).rpartition(" ")[2]
        assert (await queue.client.get(where)).json() == {"size": "x" * 5000}


async def test_a_webhook_of_a_megabyte_arrives_complete(database: Path) -> None:
    app = wrapped(database)
    async with receiving() as receiver, connected(app) as queue:
        request_id = await queue.submit("POST", f"/work?size={2**20}&fal_webhook={receiver.url}/")
        await delivered(app, 1)
        (sent,) = payloads(receiver, request_id)
    assert sent["payload"] == {"size": "x" * 2**20}


# --- operators


async def test_dead_deliveries_are_kept_counted_listed_and_redelivered(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder, well = EventRecorder(), False
    app = wrapped(database, webhook_schedule="", observers=[recorder])
    async with receiving(lambda _: 200 if well else 500) as receiver, connected(app) as queue:
        with caplog.at_level(logging.WARNING, "queue_middleware"):
            ids = [await queue.submit("POST", f"/work?fal_webhook={receiver.url}/") for _ in range(3)]

            async def dead() -> bool:
                return (await app.counts()).deliveries == {DeliveryState.DEAD: 3}

            await eventually(dead)
        assert {event.request_id for event in recorder.events if isinstance(event, DeliveryDead)} == set(ids)
        assert "webhook given up" in caplog.text
        assert receiver.url not in caplog.text

        records = await app.deliveries(dead_only=True)
        assert [record.request_id for record in records] == ids
        assert records[0].url == f"{receiver.url}/"
        (attempt,) = await app.delivery_attempts(records[0].id)
        assert (attempt.status, attempt.error) == (500, "response status 500")
        (found,) = await app.receivers()
        assert (found.host, found.health, found.failures) == (records[0].host, ReceiverHealth.FAILING, 3)

        well = True
        assert await app.redeliver(request_id=ids[0]) == 1
        assert await app.redeliver(host=records[0].host) == 2
        await delivered(app, 3)
        assert await app.redeliver(host=records[0].host) == 0
        assert await app.redeliver(delivery_id=records[1].id) == 1
        await eventually(lambda: len(receiver.webhooks_for(ids[1])) == 3)
        assert [event.count for event in recorder.events if isinstance(event, Redelivered)] == [1, 2, 1]
        assert await app.receivers() == []
        assert {one.headers["webhook-id"] for one in receiver.webhooks_for(ids[1])} == {ids[1]}


async def test_errors_of_the_operators_methods_say_what_is_wrong(database: Path) -> None:
    app = wrapped(database)
    for verb in (app.counts, app.deliveries, app.receivers, lambda: app.redeliver(host="a"), lambda: app.delivery_attempts(1)):
        with pytest.raises(NotRunning):
            await verb()  # type: ignore[operator]
    async with connected(app):
        with pytest.raises(BadRequest, match="no webhooks are selected"):
            await app.redeliver()
        with pytest.raises(UnknownRequest):
            await app.redeliver(delivery_id=1)
        assert json.loads(json.dumps(dict((await app.counts()).receivers))) == {}


async def test_a_url_is_encoded_as_by_browsers_and_called_as_displayed(database: Path) -> None:
    app = wrapped(database)
    async with receiving() as receiver, connected(app) as queue:
        request_id = await queue.submit("POST", "/work", params={"fal_webhook": f"{receiver.url}/zwei wörter?b=two words#x"})
        await delivered(app, 1)
        (webhook,) = receiver.webhooks_for(request_id)
        (record,) = await app.deliveries(request_id=request_id)
    assert webhook.target == "/zwei%20w%C3%B6rter?b=two%20words"
    assert record.url == f"{receiver.url}/zwei%20w%C3%B6rter?b=two%20words"
    assert webhook.headers["user-agent"] == USER_AGENT


async def test_a_failing_endpoint_of_one_submitter_does_not_delay_others_at_the_host(database: Path) -> None:
    app = wrapped(database, api_keys="ann:12345678,bob:12345678", webhook_schedule="0s," * 20)
    async with receiving() as receiver, connected(app) as queue:
        receiver.respond = lambda webhook: 429 if webhook.target == "/ann" else 200
        ann, bob = ({"authorization": f"Key {name}:12345678"} for name in ("ann", "bob"))
        await queue.submit("POST", "/work", params={"fal_webhook": f"{receiver.url}/ann"}, headers=ann)

        async def ann_is_paused() -> bool:
            return [one.submitter for one in await app.receivers([ReceiverHealth.OPEN])] == ["id:ann"]

        await eventually(ann_is_paused)
        request_id = await queue.submit("POST", "/work", params={"fal_webhook": f"{receiver.url}/bob"}, headers=bob)
        await eventually(lambda: receiver.webhooks_for(request_id))


async def test_a_refusal_names_the_option_for_development(database: Path) -> None:
    app = wrapped(database, outbound_allow="192.0.2.1")
    async with connected(app) as queue:
        response = await queue.client.post("/fal/queue/submit/work", params={"fal_webhook": "http://localhost:8001/hook"})
    assert response.status_code == 422
    assert 'outbound_allow="localhost" (QUEUE_OUTBOUND_ALLOW=localhost)' in response.text.replace('\\"', '"')


@pytest.mark.parametrize(("keys", "user"), [({"api_keys": "alice:k7c0yq2m5v8x1b4n"}, "alice"), ({}, "anonymous")])
async def test_progress_webhooks_carry_the_submitter_identity(database: Path, keys: dict[str, str], user: str) -> None:
    """With every way to verify a webhook, a receiver that counts webhooks by id misses neither progress nor the end."""
    app = wrapped(database, **keys)
    async with receiving() as receiver, connected(app) as queue:
        queue.client.headers["authorization"] = "Key alice:k7c0yq2m5v8x1b4n"
        call = f"fal_webhook={receiver.url}/&fal_webhook_events=started,progress"
        request_id = await queue.submit("POST", f"/work?steps=2&{call}")
        await eventually(lambda: [one["status"] for one in payloads(receiver, request_id)][-1:] == ["OK"])
        jwks = (await queue.client.get("/fal/queue/.well-known/jwks.json")).content
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=jwks))
    arrived = receiver.webhooks_for(request_id)
    assert {webhook.headers["x-fal-webhook-user-id"] for webhook in arrived} == {user}
    async with httpx.AsyncClient(transport=transport) as client:
        for who in (user, None):
            verifier = WebhookVerifier("https://service.test/jwks", user_id=who, client=client)
            read = [await verifier.verify(webhook.headers, webhook.body) for webhook in arrived]
            assert {webhook.request_id for webhook in read} == {request_id}
            ids = [webhook.webhook_id for webhook in read]
            assert ids == [*(f"{request_id}_{number}" for number in range(1, len(read))), request_id]
