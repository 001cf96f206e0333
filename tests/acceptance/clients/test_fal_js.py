"""`@fal-ai/client` of today, on Node.js: the queue form, by polling and by the stream of states."""

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


def said(logs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Level and text of what the studio itself has said."""
    return [(line["level"], line["message"]) for line in logs if line["message"].endswith("a cat")]


@pytest.mark.parametrize(("heading", "file"), [("@fal-ai/client", "program.mjs"), ("@fal-ai/serverless-client", "program.cjs")])
async def test_the_programs_of_the_page(fal_js: Client, heading: str, file: str, tmp_path: Path) -> None:
    assert "{ picture: 'A CAT' }" in await fal_js.program(block(heading, "js"), tmp_path / file)


@pytest.mark.parametrize("mode", ["polling", "streaming"])
async def test_subscribe_with_logs_and_queue_updates(js: Client, network: Edge, gate: str, mode: str) -> None:
    network.seen.clear()
    told = await js.run("subscribe", app=PAINT, input={"picture": "a cat", "gate": gate}, gate=gate, mode=mode)
    assert UUID(told["id"])
    assert told["requestId"] == told["id"]
    assert told["data"] == {"picture": "A CAT"}
    assert [update["status"] for update in told["updates"]][-2:] == ["IN_PROGRESS", "COMPLETED"]
    last = told["updates"][-1]
    assert said(last["logs"]) == [("INFO", "sketching a cat"), ("WARN", "colouring a cat")]
    assert last["metrics"]["inference_time"] > 0
    request = f"{BASE}/requests/{told['id']}"
    assert network.seen[0] == f"POST {BASE}/paint"
    assert network.seen[-1] == f"GET {request}"
    if mode == "streaming":
        assert network.seen[1:-1] == [f"GET {request}/status/stream?logs=1"]
    else:
        assert set(network.seen[1:-1]) == {f"GET {request}/status?logs=1"}


async def test_the_service_at_the_root_of_a_host(js: Client, network: Edge, gate: str) -> None:
    network.seen.clear()
    root = js.setting(BASE="https://queue.service.example.com/")
    told = await root.run("subscribe", app=PAINT, input={"picture": "a cat", "gate": gate}, gate=gate, mode="streaming")
    assert told["data"] == {"picture": "A CAT"}
    assert network.seen[0] == "POST /acme/studio/paint"


async def test_the_stream_of_states(js: Client, gate: str) -> None:
    told = await js.run("stream", app=PAINT, input={"picture": "a cat", "gate": gate}, gate=gate)
    states = [event["status"] for event in told["events"]]
    assert states[-1] == "COMPLETED"
    assert states == sorted(states, key=["IN_QUEUE", "IN_PROGRESS", "COMPLETED"].index)
    assert told["done"] == told["events"][-1]
    # Each event carries the lines that are new, so together they are all, once.
    assert said([line for event in told["events"] for line in event["logs"] or []]) == [
        ("INFO", "sketching a cat"),
        ("WARN", "colouring a cat"),
    ]
    assert told["id"] == told["requestId"]


@pytest.mark.parametrize("mode", ["polling", "streaming"])
@pytest.mark.parametrize(("app", "path"), [("acme/studio", "/"), ("123-studio", "/"), ("workflows/acme/studio/echo", "/echo")])
async def test_every_form_of_an_application_id(js: Client, app: str, path: str, mode: str) -> None:
    told = await js.run("subscribe", app=app, input={"n": 1}, mode=mode)
    assert (told["data"]["path"], told["data"]["body"]) == (path, {"n": 1})


async def test_a_submission_without_a_body(js: Client) -> None:
    told = await js.run("subscribe", app=f"{APP}/echo")
    assert told["data"]["body"] is None


async def test_an_answer_that_was_streamed(js: Client) -> None:
    told = await js.run("subscribe", app=f"{APP}/words", input={}, mode="streaming")
    assert told["data"] == {"words": ["one", "zwölf"]}


async def test_step_by_step_with_a_webhook(js: Client, gate: str) -> None:
    async with receiving() as receiver:
        told = await js.run(
            "steps",
            app=PAINT,
            input={"picture": "a cat", "gate": gate},
            gate=gate,
            webhookUrl=f"{receiver.url}/done?a=1&b=2",
        )
        request_id = told["enqueued"]["request_id"]
        (webhook,) = await eventually(lambda: receiver.webhooks_for(request_id))
    base = f"https://service.example.com{BASE}/requests/{request_id}"
    assert told["enqueued"]["status"] == "IN_QUEUE"
    assert [told["enqueued"][f"{name}_url"] for name in ("response", "status", "cancel")] == [
        base,
        f"{base}/status",
        f"{base}/cancel",
    ]
    assert (told["early"]["status"], told["early"]["body"]) == (400, {"detail": "Request is still in progress"})
    assert (told["last"]["status"], told["bare"]["logs"]) == ("COMPLETED", None)
    assert told["result"] == {"data": {"picture": "A CAT"}, "requestId": request_id}
    assert webhook.target == "/done?a=1&b=2"
    assert (webhook.content["status"], webhook.content["payload"]) == ("OK", {"picture": "A CAT"})


async def test_places_in_the_queue_and_the_end_of_waiting(js: Client, gate: str) -> None:
    told = await js.run("waiting", app=PAINT, gate=gate)
    assert [(status["status"], status["queue_position"]) for status in told["places"]] == [("IN_QUEUE", 0), ("IN_QUEUE", 1)]
    assert (told["cancelled"]["status"], told["cancelled"]["error_type"]) == ("COMPLETED", "client_cancelled")
    assert (told["error"]["status"], told["error"]["body"]["error_type"]) == (499, "client_cancelled")


async def test_cancelling_stops_the_handler(js: Client, service: Server, gate: str) -> None:
    told = await js.run("cancelling", app=PAINT, gate=gate)
    await eventually(lambda: told["requestId"] in service.lines("stopped"))
    assert (told["error"]["name"], told["error"]["status"]) == ("ApiError", 499)
    assert told["error"]["requestId"] == told["requestId"]
    assert (told["again"]["status"], told["again"]["body"]) == (400, {"status": "ALREADY_COMPLETED"})
    assert (told["unknown"]["status"], told["unknown"]["body"]) == (404, {"status": "NOT_FOUND"})


@pytest.mark.parametrize("mode", ["polling", "streaming"])
async def test_errors_arrive_as_the_application_gave_them(js: Client, mode: str) -> None:
    told = await js.run("failing", app=PAINT, input={"sculpture": "a cat"}, mode=mode)
    assert (told["name"], told["status"]) == ("ValidationError", 422)
    assert told["fieldErrors"][0]["loc"] == ["body", "picture"]
    assert UUID(told["requestId"])


async def test_an_error_that_is_no_json(js: Client) -> None:
    told = await js.run("failing", app=f"{APP}/broken", input={})
    assert (told["name"], told["message"]) == ("ApiError", "HTTP 500: Internal Server Error")


async def test_errors_of_the_platform_have_their_type(js: Client) -> None:
    told = await js.run("failing", app=f"{APP}/fallen", input={})
    assert (told["name"], told["status"], told["body"]["error_type"]) == ("ApiError", 500, "runner_server_error")


async def test_an_unknown_request(js: Client) -> None:
    told = await js.run("unknown", app=APP)
    assert [(error["name"], error["status"], error["body"]) for error in told] == [
        ("ApiError", 404, {"status": "NOT_FOUND"})
    ] * 3


async def test_a_start_that_came_too_late(js: Client, gate: str) -> None:
    told = await js.run("tooLate", app=PAINT, gate=gate)
    assert (told["status"], told["timeoutType"], told["isUserTimeout"]) == (504, "user", True)
    assert told["body"]["error_type"] == "request_timeout"


async def test_an_impatient_caller_cancels(js: Client, service: Server, gate: str) -> None:
    told = await js.run("impatient", app=PAINT, gate=gate)
    assert "timed out" in told["error"]["message"]
    assert (told["result"]["status"], told["result"]["body"]["error_type"]) == (499, "client_cancelled")
    await eventually(lambda: told["requestId"] in service.lines("stopped"))
