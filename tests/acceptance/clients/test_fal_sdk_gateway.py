"""`fal` 0.12.1, the last SDK with the gateway form: `https://{id}.gateway.{host}/fal/queue/…`, with trailing slashes."""

from __future__ import annotations

from uuid import UUID

import pytest

from .children import Client
from .edge import Edge
from .page import recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

APP = "123-studio"


@pytest.fixture(scope="module")
def sdk(fal_sdk_gateway: Client) -> Client:
    return fal_sdk_gateway.setting(**recipe("fal up to 0.12.1"))


async def test_submit_events_and_result(sdk: Client, network: Edge, gate: str) -> None:
    network.seen.clear()
    output = await sdk.run("submit", app=APP, path="/paint", arguments={"picture": "a cat"}, gate=gate)
    assert UUID(output["id"])
    assert output["result"] == output["again"] == {"picture": "A CAT"}
    kinds = [kind for kind, _ in output["events"]]
    assert kinds[-1] == "InProgress"
    assert set(kinds) <= {"Queued", "InProgress"}
    assert output["last"][0] == "Completed"
    assert isinstance(output["last"][1]["logs"], list)
    assert network.seen[0] == "POST /fal/queue/submit/paint"
    assert f"GET /fal/queue/requests/{output['id']}/status/?logs=1" in network.seen
    assert f"GET /fal/queue/requests/{output['id']}/response/" in network.seen


async def test_the_default_path_is_the_root(sdk: Client, network: Edge) -> None:
    network.seen.clear()
    output = await sdk.run("run", app=APP, path="/", arguments={"n": 1})
    assert network.seen[0] == "POST /fal/queue/submit/"
    assert (output["path"], output["body"]) == ("/", {"n": 1})


async def test_the_position_and_an_early_fetch_of_the_result(sdk: Client, gate: str) -> None:
    output = await sdk.run("queued", app=APP, path="/paint", gate=gate)
    assert output["waiting"] == ["Queued", {"position": 0}]
    assert output["early"] == [400, {"detail": "Request is still in progress"}]
    assert output["results"] == [{"picture": "FIRST"}, {"picture": "SECOND"}]


async def test_errors_of_the_application_are_unchanged(sdk: Client) -> None:
    output = await sdk.run("failing", app=APP, path="/paint", arguments={"sculpture": "a cat"})
    status, body = output["error"]
    assert status == 422
    assert body["detail"][0]["loc"] == ["body", "picture"]
    assert output["status"][0] == "Completed"


async def test_errors_of_the_platform_have_their_type(sdk: Client) -> None:
    output = await sdk.run("failing", app=APP, path="/fallen", arguments={})
    status, body = output["error"]
    assert (status, body["error_type"]) == (500, "runner_server_error")
