"""`fal_client` of today: the queue form, by polling, sync and async."""

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
    """Level and text of what the studio itself has said."""
    return [(line["level"], line["message"]) for line in logs if line["message"].endswith("a cat")]


@both
async def test_subscribe_with_logs_and_queue_updates(client: Client, network: Edge, gate: str, kind: str) -> None:
    network.seen.clear()
    told = await client.run(f"subscribe{kind}", app=PAINT, arguments={"picture": "a cat", "gate": gate}, gate=gate)
    assert UUID(told["id"])
    assert told["result"] == {"picture": "A CAT"}
    kinds = [name for name, _ in told["updates"]]
    assert (kinds[0], kinds[-1]) in {("Queued", "Completed"), ("InProgress", "Completed")}
    assert "InProgress" in kinds
    seen = [lines(status["logs"]) for name, status in told["updates"] if name == "InProgress" and status["logs"]]
    assert seen[0] == [("INFO", "sketching a cat")]
    last = told["updates"][-1][1]
    assert lines(last["logs"]) == [("INFO", "sketching a cat"), ("WARN", "colouring a cat")]
    assert last["metrics"]["inference_time"] > 0
    assert (last["error"], last["error_type"]) == (None, None)
    assert network.seen[0] == f"POST {BASE}/paint"
    assert f"GET {BASE}/requests/{told['id']}/status?logs=true" in network.seen
    assert network.seen[-1] == f"GET {BASE}/requests/{told['id']}"


@pytest.mark.parametrize("name", ["fal_client at the root of a host", "fal_client before 0.11"])
async def test_the_service_at_the_root_of_a_host(fal_client: Client, network: Edge, name: str) -> None:
    network.seen.clear()
    told = await fal_client.setting(**recipe(name)).run("subscribe", app=f"{APP}/echo", arguments={"n": 1})
    assert (told["result"]["path"], told["result"]["body"], told["result"]["request_id"]) == ("/echo", {"n": 1}, told["id"])
    assert network.seen[0] == "POST /acme/studio/echo"
    assert network.seen[-1] == f"GET /acme/studio/requests/{told['id']}"


async def test_a_host_with_a_port_and_no_proxy(fal_client: Client, network: Edge) -> None:
    direct = fal_client.setting(FAL_QUEUE_RUN_HOST=f"localhost:{network.terminator}/fal/queue/run", HTTPS_PROXY="")
    told = await direct.run("subscribe", app=f"{APP}/echo", arguments={"n": 1})
    assert told["result"]["body"] == {"n": 1}


async def test_the_key_reaches_the_application(client: Client) -> None:
    told = await client.run("subscribe", app=f"{APP}/echo", arguments={})
    assert told["result"]["authorization"] == f"Key {recipe('fal_client')['FAL_KEY']}"


@pytest.mark.parametrize(
    ("app", "path"),
    [
        ("acme/studio", "/"),
        ("workflows/acme/studio/echo", "/echo"),
        ("comfy/acme/studio/echo", "/echo"),
    ],
)
async def test_every_form_of_an_application_id(client: Client, app: str, path: str) -> None:
    told = await client.run("subscribe", app=app, arguments={"n": 1})
    assert (told["result"]["path"], told["result"]["body"]) == (path, {"n": 1})


@both
async def test_step_by_step_by_handle_and_by_id_with_a_webhook(client: Client, gate: str, kind: str) -> None:
    async with receiving() as receiver:
        told = await client.run(
            f"steps{kind}",
            app=PAINT,
            arguments={"picture": "a cat", "gate": gate},
            gate=gate,
            webhook_url=f"{receiver.url}/done?a=1&b=ü",
        )
        (webhook,) = await eventually(lambda: receiver.webhooks_for(told["id"]))
    assert told["same"], "the URLs of the answer are those that the client builds from the id"
    assert told["bare"][0] == told["by_id"][0] == "Completed"
    assert told["bare"][1]["logs"] is None
    assert lines(told["by_id"][1]["logs"]) == [("INFO", "sketching a cat"), ("WARN", "colouring a cat")]
    assert told["results"] == [{"picture": "A CAT"}] * 2
    assert webhook.target == "/done?a=1&b=%C3%BC"
    assert (webhook.content["status"], webhook.content["payload"]) == ("OK", {"picture": "A CAT"})


async def test_places_in_the_queue_priorities_and_the_end_of_waiting(client: Client, gate: str) -> None:
    told = await client.run("waiting", app=PAINT, gate=gate)
    assert told["places"] == [["Queued", {"position": place}] for place in (2, 0, 1)]
    assert told["cancelled"][0] == "Completed"
    assert told["cancelled"][1]["error_type"] == told["error"]["type"] == "client_cancelled"
    assert told["error"]["code"] == 499
    assert told["results"] == [{"picture": "FIRST"}, {"picture": "LOW"}, {"picture": "NORMAL"}]


@both
async def test_cancelling_stops_the_handler(client: Client, service: Server, gate: str, kind: str) -> None:
    told = await client.run(f"cancelling{kind}", app=PAINT, gate=gate)
    await eventually(lambda: told["id"] in service.lines("stopped"))
    assert told["status"][0] == "Completed"
    assert told["status"][1]["error_type"] == "client_cancelled"
    assert (told["error"]["code"], told["error"]["type"]) == (499, "client_cancelled")
    assert told["error"]["headers"]["x-fal-request-id"] == told["id"]
    assert (told["again"]["code"], told["again"]["message"]) == (400, '{"status": "ALREADY_COMPLETED"}')
    assert (told["unknown"]["code"], told["unknown"]["message"]) == (404, '{"status": "NOT_FOUND"}')


@both
async def test_errors_arrive_as_the_application_gave_them(client: Client, kind: str) -> None:
    told = await client.run(f"failing{kind}", app=PAINT, arguments={"sculpture": "a cat"})
    assert (told["error"]["code"], told["error"]["type"]) == (422, None)
    assert told["error"]["message"][0]["loc"] == ["body", "picture"]
    assert told["error"]["headers"] == {"x-fal-request-id": told["id"]}
    assert told["status"][0] == "Completed"
    assert told["status"][1]["error"] == "Invalid status code: 422"
    assert told["status"][1]["error_type"] is None


async def test_an_error_that_is_no_json(client: Client) -> None:
    told = await client.run("failing", app=f"{APP}/broken", arguments={})
    assert (told["error"]["code"], told["error"]["message"]) == (500, "Internal Server Error")


@both
async def test_errors_of_the_platform_have_their_type(client: Client, kind: str) -> None:
    told = await client.run(f"failing{kind}", app=f"{APP}/fallen", arguments={})
    assert (told["error"]["code"], told["error"]["type"]) == (500, "runner_server_error")
    assert told["error"]["headers"] == {"x-fal-request-id": told["id"], "x-fal-error-type": "runner_server_error"}
    assert told["status"][1]["error_type"] == "runner_server_error"
    assert told["status"][1]["error"] == told["error"]["message"]


async def test_an_unknown_request(client: Client) -> None:
    told = await client.run("unknown", app=APP)
    assert [(error["code"], error["message"]) for error in told] == [(404, '{"status": "NOT_FOUND"}')] * 2


async def test_a_start_that_came_too_late(client: Client, gate: str) -> None:
    told = await client.run("too_late", app=PAINT, gate=gate)
    assert (told["error"]["code"], told["error"]["type"]) == (504, "request_timeout")
    assert told["error"]["headers"]["x-fal-request-timeout-type"] == "user"
    assert told["status"][1]["error_type"] == "request_timeout"
    assert told["first"] == {"picture": "FIRST"}


@both
async def test_an_impatient_caller_cancels(client: Client, service: Server, gate: str, kind: str) -> None:
    told = await client.run(f"impatient{kind}", app=PAINT, gate=gate)
    assert (told["error"]["code"], told["error"]["type"]) == (499, "client_cancelled")
    await eventually(lambda: told["id"] in service.lines("stopped"))


async def test_an_answer_that_was_streamed(client: Client) -> None:
    told = await client.run("subscribe", app=f"{APP}/words", arguments={})
    assert told["result"] == {"words": ["one", "zwölf"]}


async def test_many_callers_side_by_side(client: Client) -> None:
    assert await client.run("many", app=f"{APP}/echo", count=20) == list(range(20))
