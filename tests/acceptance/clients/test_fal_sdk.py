"""The current `fal`: `fal.apps` in the queue form, with trailing slashes, as since 0.12.2."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.acceptance.servers import Server
from tests.support.queue_client import eventually

from .children import Client
from .edge import Edge
from .page import recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

APP = "acme/studio"


@pytest.fixture(scope="module")
def sdk(fal_sdk: Client) -> Client:
    return fal_sdk.setting(**recipe("fal"))


@pytest.mark.parametrize(
    ("name", "base"), [("fal", "/fal/queue/run/acme/studio"), ("fal from 0.12.2 to 2025", "/acme/studio")], ids=["path", "host"]
)
async def test_submit_events_and_result(fal_sdk: Client, network: Edge, gate: str, name: str, base: str) -> None:
    network.seen.clear()
    sdk = fal_sdk.setting(**recipe(name))
    output = await sdk.run("submit", app=APP, path="/paint", arguments={"picture": "a cat"}, gate=gate)
    assert UUID(output["id"])
    assert output["result"] == output["again"] == {"picture": "A CAT"}
    kinds = [kind for kind, _ in output["events"]]
    assert kinds[-1] == "InProgress"
    assert set(kinds) <= {"Queued", "InProgress"}
    last, status = output["last"]
    messages = [line["message"] for line in status["logs"]]
    assert messages.index("sketching a cat") < messages.index("colouring a cat")
    assert (last, status["error"], status["error_type"]) == ("Completed", None, None)
    assert network.seen[0] == f"POST {base}/paint"
    assert f"GET {base}/requests/{output['id']}/status/?logs=1" in network.seen
    assert network.seen[-1] == f"GET {base}/requests/{output['id']}/"


@pytest.mark.parametrize(
    ("app", "path", "expected"),
    [
        ("acme/studio", "", "/"),
        ("123-studio", "/echo", "/echo"),
        ("acme/studio/echo", "", "/echo"),
        ("workflows/acme/studio", "/echo", "/echo"),
    ],
)
async def test_every_form_of_an_application_id(sdk: Client, app: str, path: str, expected: str) -> None:
    output = await sdk.run("run", app=app, path=path, arguments={"n": 1})
    assert (output["path"], output["body"]) == (expected, {"n": 1})


async def test_the_position_and_an_early_fetch_of_the_result(sdk: Client, gate: str) -> None:
    output = await sdk.run("queued", app=APP, path="/paint", gate=gate)
    assert output["waiting"] == ["Queued", {"position": 0}]
    assert output["early"] == [400, {"detail": "Request is still in progress"}]
    assert output["results"] == [{"picture": "FIRST"}, {"picture": "SECOND"}]


async def test_cancelling_stops_the_handler(sdk: Client, service: Server, gate: str) -> None:
    output = await sdk.run("cancel", app=APP, path="/paint", gate=gate)
    await eventually(lambda: output["id"] in service.lines("stopped"))
    assert output["status"][1]["error_type"] == "client_cancelled"
    status, body = output["error"]
    assert (status, body["error_type"]) == (499, "client_cancelled")


async def test_errors_of_the_application_are_unchanged(sdk: Client) -> None:
    output = await sdk.run("failing", app=APP, path="/paint", arguments={"sculpture": "a cat"})
    status, body = output["error"]
    assert status == 422
    assert body["detail"][0]["loc"] == ["body", "picture"]
    assert output["status"][1]["error"] == "Invalid status code: 422"


async def test_errors_of_the_platform_have_their_type(sdk: Client) -> None:
    output = await sdk.run("failing", app=APP, path="/fallen", arguments={})
    status, body = output["error"]
    assert (status, body["error_type"]) == (500, "runner_server_error")
    assert output["status"][1]["error_type"] == "runner_server_error"
