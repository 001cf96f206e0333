"""Access to the queue: API keys, the service's own `authenticate`, and jobs that belong to one submitter."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from queue_middleware import QueueMiddleware
from queue_middleware.errors import SettingsError
from tests.support.queue_client import Queue, connected, eventually, serving
from tests.support.raw_asgi import Message, Receive, Send, http_only, respond
from tests.support.webhook_receiver import receiving

KEYS = "alice:0123456789,bob:0123456789"
ALICE, BOB = {"authorization": "Key alice:0123456789"}, {"x-api-key": "bob:0123456789"}
REQUEST_ROUTES = [
    ("GET", "/requests/{id}/status"),
    ("GET", "/{id}/get"),
    ("GET", "/requests/{id}/response"),
    ("PUT", "/requests/{id}/cancel"),
    ("GET", "/requests/{id}/status/stream"),
    ("GET", "/run/o/a/requests/{id}"),
    ("GET", "/run/o/a/requests/{id}/status"),
]


async def well(scope: Message, receive: Receive, send: Send) -> None:
    await respond(send, b'"well"', 200, [(b"content-type", b"application/json")])


async def request(queue: Queue, method: str, route: str, **headers: str) -> tuple[int, Any]:
    response = await queue.client.request(method, f"/fal/queue{route}", headers=headers)
    return response.status_code, response.json()


@pytest.mark.parametrize(("method", "route"), [("POST", "/submit/work"), ("POST", "/run/o/a/work"), *REQUEST_ROUTES])
async def test_without_a_key_every_route_responds_with_401_in_fals_format(database: Path, method: str, route: str) -> None:
    async with serving(http_only(well), database, api_keys=KEYS) as queue:
        route = route.format(id="00000000-0000-7000-8000-000000000000")
        status, body = await request(queue, method, route)
        assert (status, list(body)) == (401, ["detail"])
        assert await request(queue, method, route, authorization="Key wrong") == (401, {"detail": "invalid key credentials"})


async def test_public_routes_need_no_key(database: Path) -> None:
    async with serving(http_only(well), database, api_keys=KEYS) as queue:
        for route in ("/.well-known/jwks.json", "/openapi.json", "/v1/providers"):
            assert (await request(queue, "GET", route))[0] == 200
        _, document = await request(queue, "GET", "/openapi.json")
        assert set(document["components"]["securitySchemes"]) == {"key", "bearer", "x_api_key"}
        assert "401" in document["paths"]["/submit/{path}"]["post"]["responses"]
        assert (await queue.client.get("/anything/else")).status_code == 200


@pytest.mark.parametrize(("method", "route"), REQUEST_ROUTES)
async def test_requests_of_other_clients_and_unknown_requests_look_the_same(database: Path, method: str, route: str) -> None:
    async with serving(http_only(well), database, api_keys=KEYS) as queue:
        hers = (await queue.client.post("/fal/queue/submit/work", headers=ALICE)).json()["request_id"]
        unknown = "00000000-0000-7000-8000-000000000000"
        assert await request(queue, method, route.format(id=hers), **BOB) == (404, {"status": "NOT_FOUND"})
        assert await request(queue, method, route.format(id=unknown), **BOB) == (404, {"status": "NOT_FOUND"})


async def test_clients_can_use_their_own_requests(database: Path) -> None:
    async with serving(http_only(well), database, api_keys=KEYS) as queue:
        hers = (await queue.client.post("/fal/queue/submit/work", headers=ALICE)).json()["request_id"]

        async def over() -> bool:
            return (await request(queue, "GET", f"/requests/{hers}/status", **ALICE))[0] == 200

        await eventually(over)
        assert await request(queue, "GET", f"/requests/{hers}/response", **ALICE) == (200, "well")


async def test_without_configured_keys_the_request_id_is_sufficient(database: Path) -> None:
    async with serving(http_only(well), database) as queue:
        request_id = await queue.submit("POST", "/work", headers=ALICE)
        assert (await queue.response(request_id)).status_code == 200


async def test_limits_count_the_identity_and_not_the_address(database: Path) -> None:
    options = {"api_keys": KEYS, "max_queued_per_client": 1, "concurrency": 1, "shutdown_timeout": 0.1}

    async def never(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    async with serving(http_only(never), database, **options) as queue:
        running = (await queue.client.post("/fal/queue/submit/work", headers=ALICE)).json()["request_id"]

        async def begun() -> bool:
            return (await request(queue, "GET", f"/requests/{running}/status", **ALICE))[1]["status"] == "IN_PROGRESS"

        await eventually(begun)
        statuses = [(await queue.client.post("/fal/queue/submit/work", headers=ALICE)).status_code for _ in range(2)]
        assert statuses == [200, 429]
        assert (await queue.client.post("/fal/queue/submit/work", headers=BOB)).status_code == 200


async def test_webhooks_carry_the_submitter_identity_and_verify_with_asyncqueues_keys(database: Path) -> None:
    secret = "whsec_" + "bm90IHNvIHZlcnkgc2VjcmV0IGFmdGVyIGFsbA=="
    options = {"api_keys": KEYS, "outbound_allow": "127.0.0.1", "webhook_secret": secret}
    async with serving(http_only(well), database, **options) as queue, receiving() as receiver:
        response = await queue.client.post(f"/fal/queue/submit/work?fal_webhook={receiver.url}", headers=ALICE)
        plain = response.json()["request_id"]
        call = {"targetUrl": "/work", "onCompleteUrl": receiver.url}
        task = (await queue.client.post("/fal/queue/v1/tasks", headers=BOB, json=call)).json()["task"]["id"]
        (first,) = await eventually(lambda: receiver.webhooks_for(plain))
        (second,) = await eventually(lambda: receiver.webhooks_for(task))
    assert (first.headers["x-fal-webhook-user-id"], second.headers["x-fal-webhook-user-id"]) == ("alice", "bob")
    assert "x-asyncqueue-signature" not in first.headers
    time, code = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", second.headers["x-asyncqueue-signature"]).groups()
    assert code == hmac.new(secret.encode(), time.encode() + b"." + second.body, hashlib.sha256).hexdigest()
    assert second.headers["x-fal-webhook-signature"]
    assert "v1," in second.headers["webhook-signature"]


async def test_a_service_can_authenticate_clients_itself(database: Path) -> None:
    async def authenticate(connection: HTTPConnection) -> str | None:
        return connection.headers.get("x-user")

    async with serving(http_only(well), database, authenticate=authenticate) as queue:
        assert (await request(queue, "POST", "/submit/work"))[0] == 401
        status, submitted = await request(queue, "POST", "/submit/work", **{"x-user": "carol"})
        assert status == 200
        route = f"/requests/{submitted['request_id']}/status"
        assert (await request(queue, "GET", route, **{"x-user": "dave"}))[0] == 404
        assert (await request(queue, "GET", route, **{"x-user": "carol"}))[0] in (200, 202)


def test_invalid_keys_are_refused_at_construction() -> None:
    with pytest.raises(SettingsError, match="api_keys"):
        QueueMiddleware(http_only(well), api_keys="short")


@pytest.mark.parametrize("order", [1, -1])
async def test_a_key_of_the_queue_beside_a_token_of_the_application(database: Path, order: int) -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def look(scope: Message, receive: Receive, send: Send) -> None:
        seen.append([pair for pair in scope["headers"] if pair[0] in (b"authorization", b"x-api-key")])
        await respond(send)

    both = [("authorization", "Bearer the-applications-own"), ("x-api-key", "alice:0123456789")][::order]
    async with serving(http_only(look), database, api_keys=KEYS) as queue:
        for path in ("/fal/queue/submit/x", "/fal/queue/run/o/a/x"):
            response = await queue.client.post(path, headers=both)
            assert response.status_code == 200
            assert (await queue.client.get(response.json()["status_url"], headers=both)).status_code in (200, 202)
        task = await queue.client.post("/fal/queue/v1/tasks", headers=both, json={"targetUrl": "/x"})
        assert task.status_code == 201
        await eventually(lambda: len(seen) == 3)
        two = [("authorization", "Key bob:0123456789"), ("x-api-key", "alice:0123456789")][::order]
        assert (await queue.client.post("/fal/queue/submit/x", headers=two)).status_code == 400
    assert seen[:2] == [[(name.encode(), value.encode()) for name, value in both]] * 2


async def test_no_header_of_a_proxy_makes_an_address_an_identity(database: Path) -> None:
    forged = {"x-forwarded-for": "id:alice, 203.0.113.5"}
    options: dict[str, Any] = {"database": database, "min_free_disk": 0, "outbound_allow": "127.0.0.1"}
    trusting = ProxyHeadersMiddleware(QueueMiddleware(http_only(well), **options), trusted_hosts="*")
    async with connected(trusting) as queue, receiving() as receiver:
        response = await queue.client.post(f"/fal/queue/submit/x?fal_webhook={receiver.url}", headers=forged)
        assert (await queue.client.post("/fal/queue/v1/tasks", headers=forged, json={"targetUrl": "/x"})).status_code == 201
        (webhook,) = await eventually(lambda: receiver.webhooks_for(response.json()["request_id"]))
        assert webhook.headers["x-fal-webhook-user-id"] == "anonymous"
    async with connected(QueueMiddleware(http_only(well), **options, api_keys=KEYS)) as queue:
        assert (await request(queue, "GET", "/v1/tasks", **ALICE))[1]["pagination"]["total"] == 0
        assert (await request(queue, "GET", f"/requests/{response.json()['request_id']}/status", **ALICE))[0] == 404
