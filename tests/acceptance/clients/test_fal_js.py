"""The current `@fal-ai/client` on Node.js: the queue form, by polling and by the status stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.acceptance.servers import Server
from tests.support.queue_client import eventually
from tests.support.webhook_receiver import receiving

from .children import Client
from .edge import Edge
from .page import block

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

APP = "acme/studio"
PAINT = f"{APP}/paint"
BASE = "/fal/queue/run/acme/studio"


@pytest.fixture(scope="module")
def js(fal_js: Client) -> Client:
    return fal_js.setting(BASE="https://service.example.com/fal/queue/run/")


def lines_of(logs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Level and text of the studio's own log lines."""
    return [(line["level"], line["message"]) for line in logs if line["message"].endswith("a cat")]


@pytest.mark.parametrize(("heading", "file"), [("@fal-ai/client", "program.mjs"), ("@fal-ai/serverless-client", "program.cjs")])
async def test_the_programs_of_the_page(fal_js: Client, heading: str, file: str, tmp_path: Path) -> None:
    assert "{ picture: 'A CAT' }" in await fal_js.program(block(heading, "js"), tmp_path / file)


async def test_a_submission_with_a_key_is_sent_again(js: Client, service: Server) -> None:
    painted = len(service.lines("painting"))
    call = {"app": PAINT, "input": {"picture": "a cat"}, "headers": {"Idempotency-Key": "order-1043"}}
    first, again = await js.run("subscribe", **call), await js.run("subscribe", **call)
    assert (again["id"], again["data"]) == (first["id"], {"picture": "A CAT"})
    assert service.lines("painting")[painted:] == [first["id"]]


@pytest.mark.parametrize("mode", ["polling", "streaming"])
async def test_subscribe_with_logs_and_queue_updates(js: Client, network: Edge, gate: str, mode: str) -> None:
    network.seen.clear()
    output = await js.run("subscribe", app=PAINT, input={"picture": "a cat", "gate": gate}, gate=gate, mode=mode)
    assert UUID(output["id"])
    assert output["requestId"] == output["id"]
    assert output["data"] == {"picture": "A CAT"}
    assert [update["status"] for update in output["updates"]][-2:] == ["IN_PROGRESS", "COMPLETED"]
    last = output["updates"][-1]
    assert lines_of(last["logs"]) == [("INFO", "sketching a cat"), ("WARN", "colouring a cat")]
    assert last["metrics"]["inference_time"] > 0
    request = f"{BASE}/requests/{output['id']}"
    assert network.seen[0] == f"POST {BASE}/paint"
    assert network.seen[-1] == f"GET {request}"
    if mode == "streaming":
        assert network.seen[1:-1] == [f"GET {request}/status/stream?logs=1"]
    else:
        assert set(network.seen[1:-1]) == {f"GET {request}/status?logs=1"}


async def test_a_service_at_the_root_of_a_host(js: Client, network: Edge, gate: str) -> None:
    network.seen.clear()
    root = js.setting(BASE="https://queue.service.example.com/")
    output = await root.run("subscribe", app=PAINT, input={"picture": "a cat", "gate": gate}, gate=gate, mode="streaming")
    assert output["data"] == {"picture": "A CAT"}
    assert network.seen[0] == "POST /acme/studio/paint"


async def test_the_status_stream(js: Client, gate: str) -> None:
    output = await js.run("stream", app=PAINT, input={"picture": "a cat", "gate": gate}, gate=gate)
    states = [event["status"] for event in output["events"]]
    assert states[-1] == "COMPLETED"
    assert states == sorted(states, key=["IN_QUEUE", "IN_PROGRESS", "COMPLETED"].index)
    assert output["done"] == output["events"][-1]
    # Each event has only new lines, so together they are all lines once.
    assert lines_of([line for event in output["events"] for line in event["logs"] or []]) == [
        ("INFO", "sketching a cat"),
        ("WARN", "colouring a cat"),
    ]
    assert output["id"] == output["requestId"]


@pytest.mark.parametrize("mode", ["polling", "streaming"])
@pytest.mark.parametrize(("app", "path"), [("acme/studio", "/"), ("123-studio", "/"), ("workflows/acme/studio/echo", "/echo")])
async def test_every_form_of_an_application_id(js: Client, app: str, path: str, mode: str) -> None:
    output = await js.run("subscribe", app=app, input={"n": 1}, mode=mode)
    assert (output["data"]["path"], output["data"]["body"]) == (path, {"n": 1})


async def test_a_submission_without_a_body(js: Client) -> None:
    output = await js.run("subscribe", app=f"{APP}/echo")
    assert output["data"]["body"] is None


async def test_a_streamed_response(js: Client) -> None:
    output = await js.run("subscribe", app=f"{APP}/words", input={}, mode="streaming")
    assert output["data"] == {"words": ["one", "zwölf"]}


async def test_single_steps_with_a_webhook(js: Client, gate: str) -> None:
    async with receiving() as receiver:
        output = await js.run(
            "steps",
            app=PAINT,
            input={"picture": "a cat", "gate": gate},
            gate=gate,
            webhookUrl=f"{receiver.url}/done?a=1&b=2",
        )
        request_id = output["enqueued"]["request_id"]
        (webhook,) = await eventually(lambda: receiver.webhooks_for(request_id))
    base = f"https://service.example.com{BASE}/requests/{request_id}"
    assert output["enqueued"]["status"] == "IN_QUEUE"
    assert [output["enqueued"][f"{name}_url"] for name in ("response", "status", "cancel")] == [
        base,
        f"{base}/status",
        f"{base}/cancel",
    ]
    assert (output["early"]["status"], output["early"]["body"]) == (400, {"detail": "Request is still in progress"})
    assert (output["last"]["status"], output["bare"]["logs"]) == ("COMPLETED", None)
    assert output["result"] == {"data": {"picture": "A CAT"}, "requestId": request_id}
    assert webhook.target == "/done?a=1&b=2"
    assert (webhook.content["status"], webhook.content["payload"]) == ("OK", {"picture": "A CAT"})


async def test_positions_and_cancelling_a_queued_request(js: Client, gate: str) -> None:
    output = await js.run("waiting", app=PAINT, gate=gate)
    assert [(status["status"], status["queue_position"]) for status in output["places"]] == [("IN_QUEUE", 0), ("IN_QUEUE", 1)]
    assert (output["cancelled"]["status"], output["cancelled"]["error_type"]) == ("COMPLETED", "client_cancelled")
    assert (output["error"]["status"], output["error"]["body"]["error_type"]) == (499, "client_cancelled")


async def test_cancelling_stops_the_handler(js: Client, service: Server, gate: str) -> None:
    output = await js.run("cancelling", app=PAINT, gate=gate)
    await eventually(lambda: output["requestId"] in service.lines("stopped"))
    assert (output["error"]["name"], output["error"]["status"]) == ("ApiError", 499)
    assert output["error"]["requestId"] == output["requestId"]
    assert (output["again"]["status"], output["again"]["body"]) == (400, {"status": "ALREADY_COMPLETED"})
    assert (output["unknown"]["status"], output["unknown"]["body"]) == (404, {"status": "NOT_FOUND"})


@pytest.mark.parametrize("mode", ["polling", "streaming"])
async def test_errors_of_the_application_are_unchanged(js: Client, mode: str) -> None:
    output = await js.run("failing", app=PAINT, input={"sculpture": "a cat"}, mode=mode)
    assert (output["name"], output["status"]) == ("ValidationError", 422)
    assert output["fieldErrors"][0]["loc"] == ["body", "picture"]
    assert UUID(output["requestId"])


async def test_an_error_that_is_not_json(js: Client) -> None:
    output = await js.run("failing", app=f"{APP}/broken", input={})
    assert (output["name"], output["message"]) == ("ApiError", "HTTP 500: Internal Server Error")


async def test_errors_of_the_platform_have_their_type(js: Client) -> None:
    output = await js.run("failing", app=f"{APP}/fallen", input={})
    assert (output["name"], output["status"], output["body"]["error_type"]) == ("ApiError", 500, "runner_server_error")


async def test_an_unknown_request(js: Client) -> None:
    output = await js.run("unknown", app=APP)
    assert [(error["name"], error["status"], error["body"]) for error in output] == [
        ("ApiError", 404, {"status": "NOT_FOUND"})
    ] * 3


async def test_a_missed_start_deadline(js: Client, gate: str) -> None:
    output = await js.run("tooLate", app=PAINT, gate=gate)
    assert (output["status"], output["timeoutType"], output["isUserTimeout"]) == (504, "user", True)
    assert output["body"]["error_type"] == "request_timeout"


async def test_an_aborted_call_cancels_the_request(js: Client, service: Server, gate: str) -> None:
    output = await js.run("impatient", app=PAINT, gate=gate)
    assert "timed out" in output["error"]["message"]
    assert (output["result"]["status"], output["result"]["body"]["error_type"]) == (499, "client_cancelled")
    await eventually(lambda: output["requestId"] in service.lines("stopped"))
