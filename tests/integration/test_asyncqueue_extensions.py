"""Where this project goes further than AsyncQueue: docs/reference/protocols/asyncqueue.md, "Extensions", by number."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.test_tasks import tasking
from tests.support.provider_server import Call, Reply, providing
from tests.support.providers import KEY, Fal, Replicate
from tests.support.providers import providing as faking
from tests.support.queue_client import eventually
from tests.support.webhook_receiver import receiving

HOOK = "{asyncqueue_callback_url}"
REPLICATE = {"headers": {"Authorization": f"Bearer {KEY}"}, "maxWaitTime": 60}
POLLED = {"urlTemplate": "/status", "statusPath": "status", "doneValues": ["done"], "failValues": ["failed"]}
ORDER = json.dumps({"input": {"prompt": "a cat"}, "webhook": HOOK})


async def test_1_a_callback_before_the_response_is_kept_and_used(database: Path) -> None:
    may_respond = asyncio.Event()

    async def slow(call: Call) -> Reply:
        await may_respond.wait()
        return Reply(201)

    async with tasking(database) as tasks, providing(slow) as provider:
        created = await tasks.create(f"{provider.url}/?hook={HOOK}")
        await eventually(lambda: provider.calls)
        await tasks.call_back(created["callbackUrl"], {"early": True})
        assert (await tasks.read(created["task"]["id"]))["status"] == "processing"
        may_respond.set()
        task = await tasks.reaches(created["task"]["id"], "completed")
    assert json.loads(task["result"]["body"]) == {"early": True}


async def test_2_a_repeated_callback_receives_200_and_the_first_stays(database: Path) -> None:
    async with tasking(database) as tasks, providing() as provider:
        created = await tasks.create(f"{provider.url}/?hook={HOOK}")
        await tasks.reaches(created["task"]["id"], "waiting")
        for number in range(3):
            assert await tasks.call_back(created["callbackUrl"], {"number": number}) == {"ok": True}
        task = await tasks.read(created["task"]["id"])
    assert json.loads(task["result"]["body"]) == {"number": 0}


async def test_3_of_several_events_the_last_completes_it(database: Path) -> None:
    async with tasking(database) as tasks, faking(Replicate()) as provider:
        created = await tasks.create(f"{provider.url}/v1/predictions", body=ORDER, provider="replicate", **REPLICATE)
        task_id = created["task"]["id"]
        await tasks.reaches(task_id, "waiting")
        (job,) = provider.jobs.values()
        for event, status in (("start", "starting"), ("output", "processing")):
            await tasks.call_back(job.webhook, provider.prediction(job, status))
            task = await tasks.read(task_id)
            assert (task["status"], task["lastEvent"], event in provider.EVENTS) == ("waiting", status, True)
        await tasks.call_back(job.webhook, provider.prediction(job, "succeeded"))
        task = await tasks.read(task_id)
    assert (task["status"], json.loads(task["result"]["body"])["status"]) == ("completed", "succeeded")


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (
            {"request_id": "r", "status": "ERROR", "error": "Invalid status code: 422", "payload": {}},
            "Invalid status code: 422",
        ),
        ({"id": "p", "input": {}, "created_at": "", "status": "failed", "error": "CUDA out of memory"}, "CUDA out of memory"),
    ],
    ids=["fal", "replicate"],
)
async def test_4_a_failure_payload_fails_the_task(database: Path, payload: dict[str, object], error: str) -> None:
    async with tasking(database) as tasks, providing() as provider, receiving() as receiver:
        created = await tasks.create(f"{provider.url}/?hook={HOOK}", onCompleteUrl=receiver.url)
        await tasks.reaches(created["task"]["id"], "waiting")
        await tasks.call_back(created["callbackUrl"], payload)
        task = await tasks.reaches(created["task"]["id"], "failed")
        (webhook,) = await eventually(lambda: receiver.webhooks_for(task["id"]))
    assert (task["error"], json.loads(task["result"]["body"])) == (error, payload)
    assert (webhook.content["event"], webhook.content["task"]["error"]) == ("task.failed", error)


async def test_5_only_failed_lookups_are_counted(database: Path) -> None:
    async with tasking(database) as tasks, providing() as provider:
        created = await tasks.create(f"{provider.url}/?hook={HOOK}")
        for number in range(30):
            await tasks.call_back(f"/fal/queue/v1/callbacks/no-id-{number}", {}, 404)
        await tasks.call_back("/fal/queue/v1/callbacks/no-id", {}, 429)
        for _ in range(40):
            await tasks.call_back(created["callbackUrl"], {"valid": True})


async def test_6_the_completion_webhook_is_retried_after_a_restart_until_it_is_accepted(database: Path) -> None:
    refusing = True
    async with receiving(lambda webhook: 500 if refusing else 200) as receiver:
        async with tasking(database, webhook_schedule="1ms") as tasks, providing() as provider:
            task = await tasks.run(provider.url, onCompleteUrl=receiver.url)
            await eventually(lambda: receiver.webhooks_for(task["id"]))
        async with tasking(database, webhook_schedule=",".join(["50ms"] * 50)):
            refusing = False
            await eventually(lambda: len(receiver.webhooks_for(task["id"])) >= 2)
    first, *_, last = receiver.webhooks_for(task["id"])
    assert first.body == last.body
    assert first.headers["webhook-id"] == last.headers["webhook-id"] == task["id"]


async def test_7_polling_replaces_a_lost_callback(database: Path) -> None:
    async with tasking(database) as tasks, faking(Replicate()) as provider:
        fields = {**REPLICATE, "maxWaitTime": 0.6}
        created = await tasks.create(f"{provider.url}/v1/predictions", body=ORDER, provider="replicate", **fields)
        task = await tasks.reaches(created["task"]["id"], "waiting")
        (job,) = provider.jobs.values()
        provider.end(job)  # and its webhook never arrives
        task = await tasks.reaches(created["task"]["id"], "completed")
        assert len(provider.polls) == 1
    assert json.loads(task["result"]["body"]) == [f"https://replicate.delivery/{job.id}/out-0.webp"]


async def test_8_the_secret_appears_nowhere(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    events: list[str] = []

    class SecretFinder:
        def on_event(self, event: object) -> None:
            events.append(repr(event))

    async def echo(call: Call) -> Reply:
        """Providers may echo what they received; this one does so everywhere."""
        return Reply(202, call.body, (("content-type", "application/json"), ("x-hook", call.target)))

    async with (
        tasking(database, observers=[SecretFinder()]) as tasks,
        providing(echo) as provider,
        receiving() as receiver,
    ):
        created = await tasks.create(
            f"{provider.url}/?hook={HOOK}", body=f'{{"hook": "{HOOK}"}}', waitForSignal=True, onCompleteUrl=receiver.url
        )
        callback_id, token = created["task"]["callbackId"], created["signalToken"]
        await tasks.reaches(created["task"]["id"], "waiting")
        assert callback_id in provider.calls[0].target
        failed = {"status": "failed", "webhook": created["callbackUrl"], "error": f"no answer from {created['callbackUrl']}"}
        await tasks.call_back(created["callbackUrl"], failed)
        (webhook,) = await eventually(lambda: receiver.webhooks_for(created["task"]["id"]))
        shown = json.dumps(await tasks.read(created["task"]["id"]))
        late = await tasks.call("POST", f"/signals/{token}", 409, json={"status": "completed"})
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("queue_middleware")]
    with closing(sqlite3.connect(database)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [repr(row) for name in tables for row in connection.execute(f"SELECT * FROM {name}")]
    for secret in (callback_id, token):
        for text in ("".join(logged), "".join(rows), "".join(events), shown, json.dumps(late), webhook.body.decode()):
            assert secret not in text
    assert "no answer from" in shown
    assert "*" * 64 in shown


async def test_9_the_callback_route_responds_with_a_minimal_body(database: Path) -> None:
    async with tasking(database) as tasks, providing() as provider:
        created = await tasks.create(f"{provider.url}/?hook={HOOK}")
        assert await tasks.call_back(created["callbackUrl"], {}) == {"ok": True}


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429])
async def test_10_a_4xx_fails_a_waiting_task_at_once(database: Path, status: int) -> None:
    async with tasking(database) as tasks, providing(lambda call: Reply(status, b'{"detail": "no"}')) as provider:
        created = await tasks.create(f"{provider.url}/?hook={HOOK}", maxWaitTime=3600)
        task = await tasks.reaches(created["task"]["id"], "failed")
        await tasks.call_back(created["callbackUrl"], {}, 409)
    assert (task["error"], task["result"]["body"]) == (f"the target responded with {status}", '{"detail": "no"}')
    assert len(provider.calls) == 1


@pytest.mark.parametrize("status", [300, 302, 304])
@pytest.mark.parametrize("waits_for", [{"waitForSignal": True}, {"pollConfig": POLLED}, {}])
async def test_10_a_redirect_that_is_not_followed_fails_a_waiting_task(
    database: Path, status: int, waits_for: dict[str, Any]
) -> None:
    query = "" if waits_for else f"?hook={HOOK}"
    async with tasking(database) as tasks, providing(lambda call: Reply(status, b"")) as provider:
        created = await tasks.create(f"{provider.url}/{query}", maxWaitTime=3600, **waits_for)
        task = await tasks.reaches(created["task"]["id"], "failed")
    assert task["error"] == f"the target responded with {status}, so no work was started"
    assert len(provider.calls) == 1


async def test_a_redirect_that_is_not_followed_completes_a_task_that_does_not_wait(database: Path) -> None:
    async with tasking(database) as tasks, providing(lambda call: Reply(304, b"")) as provider:
        created = await tasks.create(f"{provider.url}/")
        task = await tasks.reaches(created["task"]["id"], "completed")
    assert task["result"]["statusCode"] == 304


async def test_11_with_configured_keys_a_callback_has_to_be_signed(database: Path) -> None:
    async with (
        faking(Fal()) as fal,
        tasking(database, callback_keys=f"127.0.0.1={fal.url}/.well-known/jwks.json") as tasks,
    ):
        created = await tasks.create(
            f"{fal.url}/o/a?fal_webhook={HOOK}",
            body='{"prompt": "cat"}',
            headers={"Authorization": f"Key {KEY}"},
            maxWaitTime=60,
        )
        await tasks.reaches(created["task"]["id"], "waiting")
        await tasks.call_back(created["callbackUrl"], {"request_id": "r", "status": "OK"}, 401)
        assert (await tasks.read(created["task"]["id"]))["status"] == "waiting"
        (job,) = fal.jobs.values()
        fal.client = httpx.AsyncClient(transport=tasks.queue.client._transport)
        assert (await fal.call_back(job, forged=True)).status_code == 401
        assert (await fal.call_back(job)).status_code == 200
        await tasks.reaches(created["task"]["id"], "completed")


@pytest.mark.usefixtures("soon")
async def test_12_the_location_of_a_202_is_polled(database: Path) -> None:
    jobs = iter([Reply(202, b"", (("retry-after", "1"),)), Reply(200, b'{"rows": 3}')])

    async def accepting(call: Call) -> Reply:
        if call.method == "POST":
            return Reply(202, b"", (("location", "/jobs/7"), ("retry-after", "1")))
        return next(jobs)

    async with tasking(database) as tasks, providing(accepting) as provider:
        created = await tasks.create(f"{provider.url}/start", maxWaitTime=60, headers={"Authorization": "Key k"})
        await tasks.reaches(created["task"]["id"], "polling")
        task = await tasks.reaches(created["task"]["id"], "completed")
    assert json.loads(task["result"]["body"]) == {"rows": 3}
    assert [(call.target, call.headers["authorization"]) for call in provider.calls[1:]] == [("/jobs/7", "Key k")] * 2


async def test_13_the_same_creation_with_the_same_key_returns_the_task_with_its_secret_ids(database: Path) -> None:
    async with tasking(database) as tasks, providing() as provider:
        keyed = type(tasks)(tasks.queue, **{"idempotency-key": "order-1042"})
        created = await keyed.create(f"{provider.url}/?hook={HOOK}")
        await tasks.reaches(created["task"]["id"], "waiting")
        again = await keyed.create(f"{provider.url}/?hook={HOOK}")
        assert (again["task"]["id"], again["task"]["status"]) == (created["task"]["id"], "waiting")
        assert again["callbackUrl"] == created["callbackUrl"]
        assert "sent before with another request" in await keyed.refused(422, targetUrl=f"{provider.url}/")
    assert len(provider.calls) == 1
