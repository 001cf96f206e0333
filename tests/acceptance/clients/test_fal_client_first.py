"""`fal_client` 0.1.0, the first: `queue.` in front of its host, submit and the handle, and polling without a pause."""

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
    told = await client.run(f"submit{kind}", app=PAINT, arguments={"picture": "a cat", "gate": gate}, gate=gate)
    assert UUID(told["id"])
    assert told["result"] == {"picture": "A CAT"}
    kinds = [name for name, _ in told["updates"]]
    assert "InProgress" in kinds
    assert kinds[-1] == "Completed"
    last = told["updates"][-1][1]
    said = [line["message"] for line in last["logs"]]
    assert said.index("sketching a cat") < said.index("colouring a cat")
    assert last["metrics"]["inference_time"] > 0
    assert told["bare"] == ["Completed", {"logs": None, "metrics": last["metrics"]}]
    assert network.seen[0] == "POST /acme/studio/paint"
    assert f"GET /acme/studio/requests/{told['id']}/status?logs=true" in network.seen
    assert network.seen[-1] == f"GET /acme/studio/requests/{told['id']}"


async def test_the_path_as_an_argument_of_its_own(client: Client) -> None:
    told = await client.run("submit", app="acme/studio", path="/echo", arguments={"n": 1})
    assert (told["result"]["path"], told["result"]["body"], told["result"]["request_id"]) == ("/echo", {"n": 1}, told["id"])


async def test_the_place_in_the_queue(client: Client, gate: str) -> None:
    told = await client.run("waiting", app=PAINT, gate=gate)
    assert told["place"] == ["Queued", {"position": 0}]
    assert told["results"] == [{"picture": "FIRST"}, {"picture": "SECOND"}]


@both
async def test_errors_arrive_as_the_application_gave_them(client: Client, kind: str) -> None:
    told = await client.run(f"failing{kind}", app=PAINT, arguments={"sculpture": "a cat"})
    assert told["code"] == 422
    assert told["body"]["detail"][0]["loc"] == ["body", "picture"]
    assert told["status"][0] == "Completed"


async def test_errors_of_the_platform_have_their_type(client: Client) -> None:
    told = await client.run("failing", app="acme/studio/fallen", arguments={})
    assert (told["code"], told["body"]["error_type"]) == (500, "runner_server_error")
