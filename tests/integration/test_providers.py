"""Tasks for providers through the whole middleware: polls, callbacks, both together, and signatures."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from queue_middleware.tasks.polling.config import render_poll_config
from queue_middleware.tasks.polling.providers import PROVIDERS
from tests.support.providers import (
    HANG_UP,
    KEY,
    Accepted,
    ElevenLabs,
    Fal,
    Luma,
    Provider,
    Replicate,
    Reply,
    Runway,
    Stability,
    providing,
)
from tests.support.queue_client import Queue, eventually, serving
from tests.support.raw_asgi import http_only, respond

BEARER = {"Authorization": f"Bearer {KEY}"}
OF_FAL = {"Authorization": f"Key {KEY}"}
PLACEHOLDER = "{asyncqueue_callback_url}"
ENDS = ("completed", "failed", "timeout", "cancelled")


async def app(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"the application itself")


class Tasks:
    """The tasks of one service as a client sees them."""

    def __init__(self, queue: Queue) -> None:
        self.client = queue.client

    async def create(self, status: int = 201, **task: Any) -> dict[str, Any]:
        made = await self.client.post("/fal/queue/v1/tasks", json=task)
        assert made.status_code == status, made.text
        return made.json()

    async def read(self, created: dict[str, Any]) -> dict[str, Any]:
        return (await self.client.get(f"/fal/queue/v1/tasks/{created['task']['id']}")).json()["task"]

    async def reaches(self, created: dict[str, Any], *statuses: str) -> dict[str, Any]:
        async def arrived() -> dict[str, Any] | None:
            task = await self.read(created)
            assert task["status"] in statuses or task["status"] not in ENDS, task
            return task if task["status"] in statuses else None

        return await eventually(arrived)

    async def run(self, **task: Any) -> dict[str, Any]:
        """Create a task and wait for its end."""
        return await self.reaches(await self.create(**task), *ENDS)


@asynccontextmanager
async def tasks(database: Path, *providers: Provider, **options: Any) -> AsyncIterator[Tasks]:
    """A service that may call this machine; the providers reach it through an in-process client."""
    given = {"outbound_allow": "127.0.0.1", "task_targets": "127.0.0.1", **options}
    async with serving(http_only(app), database, **given) as queue:
        for provider in providers:
            await provider.client.aclose()
            provider.client = queue.client
        yield Tasks(queue)


def quickly(provider: str, **changes: Any) -> dict[str, Any]:
    """A provider's template as `GET /v1/providers` shows it, with a shorter interval."""
    return {**render_poll_config(PROVIDERS[provider].poll), "interval": 0.1, **changes}


# --- polls

RUNWAY = {**BEARER, "X-Runway-Version": "2024-11-06"}
POLLED = {
    "fal": (Fal(), "/fal-ai/flux/dev", OF_FAL, '{"prompt": "a cat"}', '"prompt": "a cat"'),
    "replicate": (Replicate(), "/v1/models/a/b/predictions", BEARER, '{"input": {}}', "out-0.webp"),
    "runwayml": (Runway(), "/v1/image_to_video", RUNWAY, "{}", ".mp4?_jwt=x"),
    "luma": (Luma(), "/dream-machine/v1/generations", BEARER, "{}", "https://storage.cdn-luma.com/"),
    "elevenlabs-dubbing": (ElevenLabs(), "/v1/dubbing", {"xi-api-key": KEY}, "form", '"status": "dubbed"'),
    "stability-video": (Stability(), "/v2beta/image-to-video", BEARER, "form", '"finish_reason": "SUCCESS"'),
}


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("name", POLLED)
async def test_a_task_is_polled_until_it_is_done(name: str, database: Path) -> None:
    fake, path, headers, body, result = POLLED[name]
    async with providing(type(fake)()) as provider, tasks(database) as service:
        task = await service.run(targetUrl=provider.url + path, headers=headers, body=body, pollConfig=quickly(name))
    assert task["status"] == "completed", task
    assert task["result"]["statusCode"] == 200
    assert result in task["result"]["body"]


async def test_a_named_provider_is_polled_by_its_template(database: Path) -> None:
    async with providing(Luma()) as provider, tasks(database) as service:
        created = await service.create(
            targetUrl=f"{provider.url}/dream-machine/v1/generations", headers=BEARER, body="{}", provider="luma"
        )
        assert created["task"]["provider"] == "luma"
        assert created["task"]["pollConfig"] == json.loads(json.dumps(render_poll_config(PROVIDERS["luma"].poll)))
        assert created["task"]["maxWaitTime"] == 600
        await service.reaches(created, "polling")
        listed = (await service.client.get("/fal/queue/v1/providers")).json()["providers"]
    assert {each["id"]: each["pollConfig"] for each in listed}["luma"] == created["task"]["pollConfig"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"provider": "nobody"}, "provider is 'nobody'; it must be one of fal, replicate, "),
        ({"pollConfig": {"urlTemplate": "/x"}}, "pollConfig: Object missing required field `statusPath`"),
        (
            {"pollConfig": quickly("luma", urlTemplate="https://{startResult.body.host}/")},
            "pollConfig.urlTemplate must have a literal host",
        ),
        ({"provider": "luma", "targetUrl": "/start"}, "targetUrl is a path of this application, so the templates"),
        ({"pollConfig": quickly("luma", interval=0)}, "pollConfig.interval is 0; it must be from 0.1"),
    ],
)
async def test_invalid_tasks_are_refused_before_they_are_stored(change: dict[str, Any], text: str, database: Path) -> None:
    async with tasks(database) as service:
        refused = await service.create(400, **{"targetUrl": "http://127.0.0.1:9/x", **change})
    assert refused["error"].startswith(text)


async def test_a_refused_first_call_is_the_result(database: Path) -> None:
    async with providing(Runway()) as provider, tasks(database) as service:
        task = await service.run(targetUrl=f"{provider.url}/v1/image_to_video", body="{}", provider="runwayml")
    assert task["result"]["statusCode"] == 401
    assert provider.polls == []


async def test_a_response_without_an_id_fails_the_task(database: Path) -> None:
    config = quickly("runwayml", urlTemplate="/v1/tasks/{startResult.body.uuid}")
    async with providing(Runway()) as provider, tasks(database) as service:
        task = await service.run(targetUrl=f"{provider.url}/v1/image_to_video", headers=RUNWAY, body="{}", pollConfig=config)
    assert (task["status"], task["error"]) == (
        "failed",
        "the target's response has no usable body.uuid, which the poll URL needs",
    )


async def test_polling_times_out(database: Path) -> None:
    config = quickly("replicate", maxDuration=0.35)
    async with providing(Replicate(ends="processing")) as provider, tasks(database) as service:
        task = await service.run(
            targetUrl=f"{provider.url}/v1/predictions", headers=BEARER, body='{"input": {}}', pollConfig=config
        )
    assert task["status"] == "timeout"
    assert task["error"] == "the provider did not finish in time; the last status was processing"


@pytest.mark.usefixtures("soon")
async def test_a_cancelled_task_is_not_polled(database: Path) -> None:
    async with providing(Replicate(ends="processing")) as provider, tasks(database) as service:
        created = await service.create(
            targetUrl=f"{provider.url}/v1/predictions", headers=BEARER, body='{"input": {}}', pollConfig=quickly("replicate")
        )
        await eventually(lambda: len(provider.polls) >= 2)
        cancelled = await service.client.post(f"/fal/queue/v1/tasks/{created['task']['id']}/cancel")
        assert cancelled.json()["task"]["status"] == "cancelled"
        # Another task is polled several times after that; the cancelled one is not.
        before = len(provider.polls)
        await service.run(
            targetUrl=f"{provider.url}/v1/predictions",
            headers=BEARER,
            body='{"input": {}}',
            pollConfig=quickly("replicate", maxDuration=0.4),
        )
    gone = next(iter(provider.jobs))
    assert sum(call.path.endswith(gone) for call in provider.polls[before + 1 :]) == 0


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("ends", "result"), [("200", '{"rows": 3}'), ("303", "a,b\r\n1,2\r\n")])
async def test_202_with_a_location_needs_no_configuration(ends: str, result: str, database: Path) -> None:
    async with providing(Accepted(ends=ends, pace="1", polls_needed=0)) as provider, tasks(database) as service:
        created = await service.create(targetUrl=f"{provider.url}/work", headers=BEARER, body="{}")
        await service.reaches(created, "polling")
        task = await service.reaches(created, *ENDS)
    assert (task["status"], task["result"]["body"]) == ("completed", result)
    assert all(call.headers["authorization"] == BEARER["Authorization"] for call in provider.polls)


# --- callbacks and polls


async def test_the_provider_is_polled_at_half_of_the_time_if_its_callback_is_lost(database: Path) -> None:
    async with providing(Fal(polls_needed=0)) as provider, tasks(database, provider) as service:
        created = await service.create(
            targetUrl=f"{provider.url}/fal-ai/flux/dev?fal_webhook={PLACEHOLDER}",
            headers=OF_FAL,
            body='{"prompt": "a cat"}',
            provider="fal",
            maxWaitTime=0.6,
        )
        task = await service.reaches(created, *ENDS)  # without a callback
        (job,) = provider.jobs.values()
        late = await provider.call_back(job)
    assert task["status"] == "completed", task
    assert json.loads(task["result"]["body"])["prompt"] == "a cat"
    assert len(provider.polls) == 2  # the status, the result
    assert late.status_code == 409


async def test_the_last_poll_is_at_the_end(database: Path) -> None:
    async with providing(Replicate(ends="processing")) as provider, tasks(database, provider) as service:
        task = await service.run(
            targetUrl=f"{provider.url}/v1/predictions",
            headers=BEARER,
            body=json.dumps({"input": {}, "webhook": PLACEHOLDER}),
            provider="replicate",
            maxWaitTime=0.4,
        )
    assert (task["status"], len(provider.polls)) == ("timeout", 2)


async def test_only_the_last_of_several_events_is_final(database: Path) -> None:
    async with providing(Replicate()) as provider, tasks(database, provider) as service:
        order = json.dumps({"input": {}, "webhook": PLACEHOLDER})
        created = await service.create(targetUrl=f"{provider.url}/v1/predictions", headers=BEARER, body=order)
        await service.reaches(created, "waiting")
        (job,) = provider.jobs.values()
        for event, status in [("start", "starting"), ("output", "processing")]:
            assert (await provider.call_back(job, event)).status_code == 200
            assert (await service.read(created))["lastEvent"] == status
            assert (await service.read(created))["status"] == "waiting"
        assert (await provider.call_back(job)).status_code == 200
        task = await service.reaches(created, "completed")
        assert (await provider.call_back(job)).status_code == 200  # a repeated callback
        assert (await provider.call_back(job, "output")).status_code == 200  # an earlier event that arrives late
        assert await service.read(created) == task
    assert json.loads(task["result"]["body"])["output"] == [f"https://replicate.delivery/{job.id}/out-0.webp"]


@pytest.mark.parametrize(
    ("fake", "path", "headers", "order", "error"),
    [
        (Fal(), f"/fal-ai/flux/dev?fal_webhook={PLACEHOLDER}", OF_FAL, {}, "Invalid status code: 422"),
        (Replicate(ends="failed"), "/v1/predictions", BEARER, {"input": {}, "webhook": PLACEHOLDER}, "CUDA out of memory"),
    ],
)
async def test_a_failure_in_a_callback_fails_the_task(
    fake: Any, path: str, headers: dict[str, str], order: Any, error: str, database: Path
) -> None:
    async with providing(type(fake)(ends=fake.ends)) as provider, tasks(database, provider) as service:
        created = await service.create(targetUrl=provider.url + path, headers=headers, body=json.dumps(order))
        await service.reaches(created, "waiting")
        (job,) = provider.jobs.values()
        assert (await provider.call_back(job)).status_code == 200
        task = await service.reaches(created, "failed")
    assert task["error"] == error


async def test_luma_sends_every_state_and_the_last_ends_the_task(database: Path) -> None:
    async with providing(Luma()) as provider, tasks(database, provider) as service:
        order = json.dumps({"prompt": "a cat", "callback_url": PLACEHOLDER})
        created = await service.create(targetUrl=f"{provider.url}/dream-machine/v1/generations", headers=BEARER, body=order)
        await service.reaches(created, "waiting")
        (job,) = provider.jobs.values()
        for state in ("queued", "dreaming", "completed"):
            assert (await provider.call_back(job, state)).status_code == 200
        task = await service.reaches(created, "completed")
    assert json.loads(task["result"]["body"])["state"] == "completed"


# --- signatures


async def test_with_a_configured_key_callbacks_have_to_be_signed(database: Path) -> None:
    provider = Replicate()
    async with providing(provider), tasks(database, provider, callback_keys=f"127.0.0.1={provider.secret}") as service:
        order = json.dumps({"input": {}, "webhook": PLACEHOLDER})
        created = await service.create(targetUrl=f"{provider.url}/v1/predictions", headers=BEARER, body=order)
        await service.reaches(created, "waiting")
        (job,) = provider.jobs.values()
        forged = await provider.call_back(job, secret="whsec_" + "A" * 44)
        assert (forged.status_code, list(forged.json())) == (401, ["error"])
        unsigned = await service.client.post(job.webhook or "", json={"status": "succeeded"})
        assert unsigned.status_code == 401
        assert (await service.read(created))["status"] == "waiting"
        assert (await provider.call_back(job)).status_code == 200
        await service.reaches(created, "completed")


async def test_fal_signs_with_the_keys_that_it_publishes(database: Path) -> None:
    async with providing(Fal()) as provider:
        keys = f"127.0.0.1={provider.url}/.well-known/jwks.json"
        async with tasks(database, provider, callback_keys=keys) as service:
            target = f"{provider.url}/fal-ai/flux/dev?fal_webhook={PLACEHOLDER}"
            created = await service.create(targetUrl=target, headers=OF_FAL, body='{"prompt": "x"}')
            await service.reaches(created, "waiting")
            (job,) = provider.jobs.values()
            assert (await provider.call_back(job, forged=True)).status_code == 401
            assert (await provider.call_back(job)).status_code == 200
            await service.reaches(created, "completed")


# --- hosts


@pytest.mark.usefixtures("soon")
async def test_hosts_outside_task_targets_are_not_polled(database: Path) -> None:
    elsewhere = Accepted(location="http://localhost:9/jobs/{id}", pace="1")
    async with providing(elsewhere) as provider, tasks(database, outbound_allow="127.0.0.1, localhost") as service:
        task = await service.run(targetUrl=f"{provider.url}/work", headers=BEARER, body="{}")
    assert task["status"] == "failed"
    assert task["error"] == "the provider cannot be polled: localhost is not in task_targets"


@pytest.mark.usefixtures("soon")
async def test_failed_polls_are_repeated(database: Path) -> None:
    async with providing(Replicate()) as provider, tasks(database) as service:
        provider.interruptions.extend([Reply(503), Reply(404), HANG_UP])
        task = await service.run(
            targetUrl=f"{provider.url}/v1/predictions",
            headers=BEARER,
            body='{"input": {}}',
            pollConfig=quickly("replicate"),
        )
    assert task["status"] == "completed"
    assert len(provider.polls) == 3 + 3
