"""`fal` of today: `fal.apps` in the queue form, with slashes at the end, as it has them since 0.12.2."""

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
    told = await sdk.run("submit", app=APP, path="/paint", arguments={"picture": "a cat"}, gate=gate)
    assert UUID(told["id"])
    assert told["result"] == told["again"] == {"picture": "A CAT"}
    kinds = [kind for kind, _ in told["events"]]
    assert kinds[-1] == "InProgress"
    assert set(kinds) <= {"Queued", "InProgress"}
    last, status = told["last"]
    said = [line["message"] for line in status["logs"]]
    assert said.index("sketching a cat") < said.index("colouring a cat")
    assert (last, status["error"], status["error_type"]) == ("Completed", None, None)
    assert network.seen[0] == f"POST {base}/paint"
    assert f"GET {base}/requests/{told['id']}/status/?logs=1" in network.seen
    assert network.seen[-1] == f"GET {base}/requests/{told['id']}/"


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
    told = await sdk.run("run", app=app, path=path, arguments={"n": 1})
    assert (told["path"], told["body"]) == (expected, {"n": 1})


async def test_the_place_in_the_queue_and_a_result_that_is_not_there_yet(sdk: Client, gate: str) -> None:
    told = await sdk.run("queued", app=APP, path="/paint", gate=gate)
    assert told["waiting"] == ["Queued", {"position": 0}]
    assert told["early"] == [400, {"detail": "Request is still in progress"}]
    assert told["results"] == [{"picture": "FIRST"}, {"picture": "SECOND"}]


async def test_cancelling_stops_the_handler(sdk: Client, service: Server, gate: str) -> None:
    told = await sdk.run("cancel", app=APP, path="/paint", gate=gate)
    await eventually(lambda: told["id"] in service.lines("stopped"))
    assert told["status"][1]["error_type"] == "client_cancelled"
    status, body = told["error"]
    assert (status, body["error_type"]) == (499, "client_cancelled")


async def test_errors_arrive_as_the_application_gave_them(sdk: Client) -> None:
    told = await sdk.run("failing", app=APP, path="/paint", arguments={"sculpture": "a cat"})
    status, body = told["error"]
    assert status == 422
    assert body["detail"][0]["loc"] == ["body", "picture"]
    assert told["status"][1]["error"] == "Invalid status code: 422"


async def test_errors_of_the_platform_have_their_type(sdk: Client) -> None:
    told = await sdk.run("failing", app=APP, path="/fallen", arguments={})
    status, body = told["error"]
    assert (status, body["error_type"]) == (500, "runner_server_error")
    assert told["status"][1]["error_type"] == "runner_server_error"
