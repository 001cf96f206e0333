"""`fal_client` 0.1.0, the first version: `queue.` before its host, submit and the handle, polling without a pause."""

from __future__ import annotations

from uuid import UUID

import pytest

from .children import Client
from .edge import Edge
from .page import recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAINT = "acme/studio/paint"

both = pytest.mark.parametrize("kind", ["", "_async"], ids=["sync", "async"])


@pytest.fixture(scope="module")
def client(fal_client_first: Client) -> Client:
    return fal_client_first.setting(**recipe("fal_client before 0.11"))


@both
async def test_submit_events_and_result(client: Client, network: Edge, gate: str, kind: str) -> None:
    network.seen.clear()
    output = await client.run(f"submit{kind}", app=PAINT, arguments={"picture": "a cat", "gate": gate}, gate=gate)
    assert UUID(output["id"])
    assert output["result"] == {"picture": "A CAT"}
    kinds = [name for name, _ in output["updates"]]
    assert "InProgress" in kinds
    assert kinds[-1] == "Completed"
    last = output["updates"][-1][1]
    messages = [line["message"] for line in last["logs"]]
    assert messages.index("sketching a cat") < messages.index("colouring a cat")
    assert last["metrics"]["inference_time"] > 0
    assert output["bare"] == ["Completed", {"logs": None, "metrics": last["metrics"]}]
    assert network.seen[0] == "POST /acme/studio/paint"
    assert f"GET /acme/studio/requests/{output['id']}/status?logs=true" in network.seen
    assert network.seen[-1] == f"GET /acme/studio/requests/{output['id']}"


async def test_the_path_as_a_separate_argument(client: Client) -> None:
    output = await client.run("submit", app="acme/studio", path="/echo", arguments={"n": 1})
    assert (output["result"]["path"], output["result"]["body"], output["result"]["request_id"]) == (
        "/echo",
        {"n": 1},
        output["id"],
    )


async def test_the_position_in_the_queue(client: Client, gate: str) -> None:
    output = await client.run("waiting", app=PAINT, gate=gate)
    assert output["place"] == ["Queued", {"position": 0}]
    assert output["results"] == [{"picture": "FIRST"}, {"picture": "SECOND"}]


@both
async def test_errors_of_the_application_are_unchanged(client: Client, kind: str) -> None:
    output = await client.run(f"failing{kind}", app=PAINT, arguments={"sculpture": "a cat"})
    assert output["code"] == 422
    assert output["body"]["detail"][0]["loc"] == ["body", "picture"]
    assert output["status"][0] == "Completed"


async def test_errors_of_the_platform_have_their_type(client: Client) -> None:
    output = await client.run("failing", app="acme/studio/fallen", arguments={})
    assert (output["code"], output["body"]["error_type"]) == (500, "runner_server_error")
