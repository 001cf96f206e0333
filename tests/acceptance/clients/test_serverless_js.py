"""`@fal-ai/serverless-client` 0.5.4 and 0.7.4: the gateway form without slashes at the end, on Node.js."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.support.queue_client import eventually
from tests.support.webhook_receiver import receiving

from .children import Client
from .edge import Edge
from .page import recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

APP = "123-studio"


@pytest.fixture(scope="module")
def js(serverless_js: Client) -> Client:
    return serverless_js.setting(**recipe("@fal-ai/serverless-client up to 0.7.4"))


async def test_subscribe_with_updates_and_logs(js: Client, network: Edge, gate: str) -> None:
    network.seen.clear()
    told = await js.run("subscribe", app=APP, path="/paint", input={"picture": "a cat", "gate": gate}, gate=gate)
    assert UUID(told["id"])
    assert told["result"] == {"picture": "A CAT"}
    assert [update["status"] for update in told["updates"]][-2:] == ["IN_PROGRESS", "COMPLETED"]
    assert all(isinstance(update["logs"], list) for update in told["updates"])
    assert network.seen[0] == "POST /fal/queue/submit/paint"
    assert f"GET /fal/queue/requests/{told['id']}/status?logs=1" in network.seen
    assert network.seen[-1] == f"GET /fal/queue/requests/{told['id']}/response"


async def test_the_host_can_be_configured_instead(serverless_js: Client) -> None:
    told = await serverless_js.run(
        "subscribe", app=APP, path="/echo", input={"n": 1}, config={"host": "gateway.service.example.com"}
    )
    assert (told["result"]["path"], told["result"]["body"]) == ("/echo", {"n": 1})
    assert told["result"]["request_id"] == told["id"]


async def test_or_every_url_be_rewritten_on_its_way(serverless_js: Client) -> None:
    told = await serverless_js.run("elsewhere", app=APP, path="/echo", input={"n": 1}, base="https://service.example.com")
    assert told["body"] == {"n": 1}


async def test_without_a_path_it_is_the_root(js: Client, network: Edge) -> None:
    network.seen.clear()
    told = await js.run("subscribe", app=APP, input={"n": 1})
    assert network.seen[0] == "POST /fal/queue/submit"
    assert told["result"]["path"] == "/"


async def test_step_by_step_with_a_webhook(js: Client, gate: str) -> None:
    async with receiving() as receiver:
        told = await js.run(
            "steps",
            app=APP,
            path="/paint",
            input={"picture": "a cat", "gate": gate},
            gate=gate,
            webhookUrl=f"{receiver.url}/done?a=1&b=2",
        )
        (webhook,) = await eventually(lambda: receiver.webhooks_for(told["requestId"]))
    assert told["early"]["name"] == "ApiError"
    assert (told["early"]["status"], told["early"]["body"]) == (400, {"detail": "Request is still in progress"})
    assert told["status"]["status"] in ("IN_QUEUE", "IN_PROGRESS")
    assert told["status"]["logs"] is None
    assert told["result"] == {"picture": "A CAT"}
    assert webhook.target == "/done?a=1&b=2"
    assert (webhook.content["status"], webhook.content["payload"]) == ("OK", {"picture": "A CAT"})


async def test_errors_arrive_as_the_application_gave_them(js: Client) -> None:
    told = await js.run("failing", app=APP, path="/paint", input={"sculpture": "a cat"})
    assert (told["name"], told["status"]) == ("ValidationError", 422)
    assert told["fieldErrors"][0]["loc"] == ["body", "picture"]


async def test_errors_of_the_platform_have_their_type(js: Client) -> None:
    told = await js.run("failing", app=APP, path="/fallen", input={})
    assert (told["name"], told["status"], told["body"]["error_type"]) == ("ApiError", 500, "runner_server_error")


async def test_an_unknown_request(js: Client) -> None:
    told = await js.run("unknown", app=APP, requestId="01936b6e-0000-7000-8000-000000000000")
    assert (told["name"], told["status"], told["body"]) == ("ApiError", 404, {"status": "NOT_FOUND"})
