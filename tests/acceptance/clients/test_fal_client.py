"""The current `fal_client`: the queue form, by polling, sync and async."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from tests.acceptance.servers import Server
from tests.support.queue_client import eventually
from tests.support.webhook_receiver import receiving

from .children import Client
from .edge import Edge
from .page import recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

APP = "acme/studio"
PAINT = f"{APP}/paint"
BASE = "/fal/queue/run/acme/studio"

both = pytest.mark.parametrize("kind", ["", "_async"], ids=["sync", "async"])


@pytest.fixture(scope="module")
def client(fal_client: Client) -> Client:
    return fal_client.setting(**recipe("fal_client"))


def lines(logs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Level and text of the studio's own log lines."""
    return [(line["level"], line["message"]) for line in logs if line["message"].endswith("a cat")]


@both
async def test_subscribe_with_logs_and_queue_updates(client: Client, network: Edge, gate: str, kind: str) -> None:
    network.seen.clear()
    output = await client.run(f"subscribe{kind}", app=PAINT, arguments={"picture": "a cat", "gate": gate}, gate=gate)
    assert UUID(output["id"])
    assert output["result"] == {"picture": "A CAT"}
    kinds = [name for name, _ in output["updates"]]
    assert (kinds[0], kinds[-1]) in {("Queued", "Completed"), ("InProgress", "Completed")}
    assert "InProgress" in kinds
    seen = [lines(status["logs"]) for name, status in output["updates"] if name == "InProgress" and status["logs"]]
    assert seen[0] == [("INFO", "sketching a cat")]
    last = output["updates"][-1][1]
    assert lines(last["logs"]) == [("INFO", "sketching a cat"), ("WARN", "colouring a cat")]
    assert last["metrics"]["inference_time"] > 0
    assert (last["error"], last["error_type"]) == (None, None)
    assert network.seen[0] == f"POST {BASE}/paint"
    assert f"GET {BASE}/requests/{output['id']}/status?logs=true" in network.seen
    assert network.seen[-1] == f"GET {BASE}/requests/{output['id']}"


@both
async def test_a_submission_with_a_key_that_the_client_sends_again(
    client: Client, network: Edge, service: Server, kind: str
) -> None:
    """The response to the submission is lost twice; the client sends it again by itself. Then its program runs again."""
    headers = {"Idempotency-Key": f"order-1042{kind}"}
    network.seen.clear()
    network.lost, painted = 2, len(service.lines("painting"))
    first = await client.run(f"subscribe{kind}", app=PAINT, arguments={"picture": "a cat"}, headers=headers)
    assert network.seen.count(f"POST {BASE}/paint") == 3
    again = await client.run(f"subscribe{kind}", app=PAINT, arguments={"picture": "a cat"}, headers=headers)
    assert (again["id"], again["result"]) == (first["id"], {"picture": "A CAT"})
    assert service.lines("painting")[painted:] == [first["id"]]


@pytest.mark.parametrize("name", ["fal_client at the root of a host", "fal_client before 0.11"])
async def test_a_service_at_the_root_of_a_host(fal_client: Client, network: Edge, name: str) -> None:
    network.seen.clear()
    output = await fal_client.setting(**recipe(name)).run("subscribe", app=f"{APP}/echo", arguments={"n": 1})
    assert (output["result"]["path"], output["result"]["body"], output["result"]["request_id"]) == (
        "/echo",
        {"n": 1},
        output["id"],
    )
    assert network.seen[0] == "POST /acme/studio/echo"
    assert network.seen[-1] == f"GET /acme/studio/requests/{output['id']}"


async def test_a_host_with_a_port_and_no_proxy(fal_client: Client, network: Edge) -> None:
    direct = fal_client.setting(FAL_QUEUE_RUN_HOST=f"localhost:{network.terminator}/fal/queue/run", HTTPS_PROXY="")
    output = await direct.run("subscribe", app=f"{APP}/echo", arguments={"n": 1})
    assert output["result"]["body"] == {"n": 1}


async def test_the_key_reaches_the_application(client: Client) -> None:
    output = await client.run("subscribe", app=f"{APP}/echo", arguments={})
    assert output["result"]["authorization"] == f"Key {recipe('fal_client')['FAL_KEY']}"


@pytest.mark.parametrize(
    ("app", "path"),
    [
        ("acme/studio", "/"),
        ("workflows/acme/studio/echo", "/echo"),
        ("comfy/acme/studio/echo", "/echo"),
    ],
)
async def test_every_form_of_an_application_id(client: Client, app: str, path: str) -> None:
    output = await client.run("subscribe", app=app, arguments={"n": 1})
    assert (output["result"]["path"], output["result"]["body"]) == (path, {"n": 1})


@both
async def test_single_steps_by_handle_and_by_id_with_a_webhook(client: Client, gate: str, kind: str) -> None:
    async with receiving() as receiver:
        output = await client.run(
            f"steps{kind}",
            app=PAINT,
            arguments={"picture": "a cat", "gate": gate},
            gate=gate,
            webhook_url=f"{receiver.url}/done?a=1&b=ü",
        )
        (webhook,) = await eventually(lambda: receiver.webhooks_for(output["id"]))
    assert output["same"], "the returned URLs are those that the client builds from the id"
    assert output["bare"][0] == output["by_id"][0] == "Completed"
    assert output["bare"][1]["logs"] is None
    assert lines(output["by_id"][1]["logs"]) == [("INFO", "sketching a cat"), ("WARN", "colouring a cat")]
    assert output["results"] == [{"picture": "A CAT"}] * 2
    assert webhook.target == "/done?a=1&b=%C3%BC"
    assert (webhook.content["status"], webhook.content["payload"]) == ("OK", {"picture": "A CAT"})


async def test_positions_priorities_and_cancelling_a_queued_request(client: Client, gate: str) -> None:
    output = await client.run("waiting", app=PAINT, gate=gate)
    assert output["places"] == [["Queued", {"position": place}] for place in (2, 0, 1)]
    assert output["cancelled"][0] == "Completed"
    assert output["cancelled"][1]["error_type"] == output["error"]["type"] == "client_cancelled"
    assert output["error"]["code"] == 499
    assert output["results"] == [{"picture": "FIRST"}, {"picture": "LOW"}, {"picture": "NORMAL"}]


@both
async def test_cancelling_stops_the_handler(client: Client, service: Server, gate: str, kind: str) -> None:
    output = await client.run(f"cancelling{kind}", app=PAINT, gate=gate)
    await eventually(lambda: output["id"] in service.lines("stopped"))
    assert output["status"][0] == "Completed"
    assert output["status"][1]["error_type"] == "client_cancelled"
    assert (output["error"]["code"], output["error"]["type"]) == (499, "client_cancelled")
    assert output["error"]["headers"]["x-fal-request-id"] == output["id"]
    assert (output["again"]["code"], output["again"]["message"]) == (400, '{"status": "ALREADY_COMPLETED"}')
    assert (output["unknown"]["code"], output["unknown"]["message"]) == (404, '{"status": "NOT_FOUND"}')


@both
async def test_errors_of_the_application_are_unchanged(client: Client, kind: str) -> None:
    output = await client.run(f"failing{kind}", app=PAINT, arguments={"sculpture": "a cat"})
    assert (output["error"]["code"], output["error"]["type"]) == (422, None)
    assert output["error"]["message"][0]["loc"] == ["body", "picture"]
    assert output["error"]["headers"] == {"x-fal-request-id": output["id"]}
    assert output["status"][0] == "Completed"
    assert output["status"][1]["error"] == "Invalid status code: 422"
    assert output["status"][1]["error_type"] is None


async def test_an_error_that_is_not_json(client: Client) -> None:
    output = await client.run("failing", app=f"{APP}/broken", arguments={})
    assert (output["error"]["code"], output["error"]["message"]) == (500, "Internal Server Error")


@both
async def test_errors_of_the_platform_have_their_type(client: Client, kind: str) -> None:
    output = await client.run(f"failing{kind}", app=f"{APP}/fallen", arguments={})
    assert (output["error"]["code"], output["error"]["type"]) == (500, "runner_server_error")
    assert output["error"]["headers"] == {"x-fal-request-id": output["id"], "x-fal-error-type": "runner_server_error"}
    assert output["status"][1]["error_type"] == "runner_server_error"
    assert output["status"][1]["error"] == output["error"]["message"]


async def test_an_unknown_request(client: Client) -> None:
    output = await client.run("unknown", app=APP)
    assert [(error["code"], error["message"]) for error in output] == [(404, '{"status": "NOT_FOUND"}')] * 2


async def test_a_missed_start_deadline(client: Client, gate: str) -> None:
    output = await client.run("too_late", app=PAINT, gate=gate)
    assert (output["error"]["code"], output["error"]["type"]) == (504, "request_timeout")
    assert output["error"]["headers"]["x-fal-request-timeout-type"] == "user"
    assert output["status"][1]["error_type"] == "request_timeout"
    assert output["first"] == {"picture": "FIRST"}


@both
async def test_a_client_timeout_cancels_the_request(client: Client, service: Server, gate: str, kind: str) -> None:
    output = await client.run(f"impatient{kind}", app=PAINT, gate=gate)
    assert (output["error"]["code"], output["error"]["type"]) == (499, "client_cancelled")
    await eventually(lambda: output["id"] in service.lines("stopped"))


async def test_a_streamed_response(client: Client) -> None:
    output = await client.run("subscribe", app=f"{APP}/words", arguments={})
    assert output["result"] == {"words": ["one", "zwölf"]}


async def test_many_concurrent_callers(client: Client) -> None:
    assert await client.run("many", app=f"{APP}/echo", count=20) == list(range(20))
