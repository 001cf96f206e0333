"""`@fal-ai/serverless-client` 0.5.4 and 0.7.4: the gateway form without trailing slashes, on Node.js."""

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
    output = await js.run("subscribe", app=APP, path="/paint", input={"picture": "a cat", "gate": gate}, gate=gate)
    assert UUID(output["id"])
    assert output["result"] == {"picture": "A CAT"}
    assert [update["status"] for update in output["updates"]][-2:] == ["IN_PROGRESS", "COMPLETED"]
    assert all(isinstance(update["logs"], list) for update in output["updates"])
    assert network.seen[0] == "POST /fal/queue/submit/paint"
    assert f"GET /fal/queue/requests/{output['id']}/status?logs=1" in network.seen
    assert network.seen[-1] == f"GET /fal/queue/requests/{output['id']}/response"


async def test_with_a_configured_host(serverless_js: Client) -> None:
    output = await serverless_js.run(
        "subscribe", app=APP, path="/echo", input={"n": 1}, config={"host": "gateway.service.example.com"}
    )
    assert (output["result"]["path"], output["result"]["body"]) == ("/echo", {"n": 1})
    assert output["result"]["request_id"] == output["id"]


async def test_with_rewritten_urls(serverless_js: Client) -> None:
    output = await serverless_js.run("elsewhere", app=APP, path="/echo", input={"n": 1}, base="https://service.example.com")
    assert output["body"] == {"n": 1}


async def test_the_default_path_is_the_root(js: Client, network: Edge) -> None:
    network.seen.clear()
    output = await js.run("subscribe", app=APP, input={"n": 1})
    assert network.seen[0] == "POST /fal/queue/submit"
    assert output["result"]["path"] == "/"


async def test_single_steps_with_a_webhook(js: Client, gate: str) -> None:
    async with receiving() as receiver:
        output = await js.run(
            "steps",
            app=APP,
            path="/paint",
            input={"picture": "a cat", "gate": gate},
            gate=gate,
            webhookUrl=f"{receiver.url}/done?a=1&b=2",
        )
        (webhook,) = await eventually(lambda: receiver.webhooks_for(output["requestId"]))
    assert output["early"]["name"] == "ApiError"
    assert (output["early"]["status"], output["early"]["body"]) == (400, {"detail": "Request is still in progress"})
    assert output["status"]["status"] in ("IN_QUEUE", "IN_PROGRESS")
    assert output["status"]["logs"] is None
    assert output["result"] == {"picture": "A CAT"}
    assert webhook.target == "/done?a=1&b=2"
    assert (webhook.content["status"], webhook.content["payload"]) == ("OK", {"picture": "A CAT"})


async def test_errors_of_the_application_are_unchanged(js: Client) -> None:
    output = await js.run("failing", app=APP, path="/paint", input={"sculpture": "a cat"})
    assert (output["name"], output["status"]) == ("ValidationError", 422)
    assert output["fieldErrors"][0]["loc"] == ["body", "picture"]


async def test_errors_of_the_platform_have_their_type(js: Client) -> None:
    output = await js.run("failing", app=APP, path="/fallen", input={})
    assert (output["name"], output["status"], output["body"]["error_type"]) == ("ApiError", 500, "runner_server_error")


async def test_an_unknown_request(js: Client) -> None:
    output = await js.run("unknown", app=APP, requestId="01936b6e-0000-7000-8000-000000000000")
    assert (output["name"], output["status"], output["body"]) == ("ApiError", 404, {"status": "NOT_FOUND"})
