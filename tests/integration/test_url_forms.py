"""The forms of fal's URLs: the target of a submission, the URLs in its response, and refusals of everything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from queue_middleware import QueueMiddleware
from tests.support.queue_client import Queue, connected, eventually, serving, stored_jobs
from tests.support.raw_asgi import Message, Receive, Send, call, http_only, http_scope, respond

UNKNOWN = "0192d3b5-7a4c-7def-8123-456789abcdef"
OURS = "http://service.test/fal/queue"


@http_only
async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """Respond with the received method and URL."""
    body = (await receive())["body"]
    seen = [scope["method"], scope["raw_path"].decode(), scope["query_string"].decode(), body.decode()]
    await respond(send, json.dumps(seen).encode(), headers=[(b"content-type", b"application/json")])


async def follow(queue: Queue, submitted: dict[str, Any], **request: Any) -> httpx.Response:
    """The stored response, found only with the returned URLs."""

    async def over() -> bool:
        status = await queue.client.get(submitted["status_url"], **request)
        assert status.json()["status_url"] == submitted["status_url"]
        return status.status_code == 200

    await eventually(over)
    return await queue.client.get(submitted["response_url"], **request)


# --- a complete request in each form


@pytest.mark.parametrize(
    ("path", "app", "seen"),
    [
        ("/acme/pictures", "/acme/pictures", "/"),
        ("/acme/pictures/", "/acme/pictures", "/"),
        ("/acme/pictures/v1/gen%2Ferate/", "/acme/pictures", "/v1/gen%2Ferate/"),
        ("/workflows/acme/pictures/generate", "/workflows/acme/pictures", "/generate"),
        ("/comfy/acme/pictures", "/comfy/acme/pictures", "/"),
        ("/123-demo", "/123/demo", "/"),
    ],
)
async def test_the_queue_form(database: Path, path: str, app: str, seen: str) -> None:
    async with serving(echo, database) as queue:
        answered = await queue.client.post(f"/fal/queue/run{path}?a=1&fal_max_queue_length=9&a=%20", json={"n": 1})
        assert answered.status_code == 200
        submitted = answered.json()
        base = f"{OURS}/run{app}/requests/{submitted['request_id']}"
        assert list(submitted) == [
            "status", "request_id", "response_url", "status_url", "cancel_url", "logs", "metrics", "queue_position",
            "gateway_request_id",
        ]  # fmt: skip
        assert submitted["response_url"] == base
        assert submitted["status_url"] == f"{base}/status"
        assert submitted["cancel_url"] == f"{base}/cancel"
        assert (await follow(queue, submitted)).json() == ["POST", seen, "a=1&a=%20", '{"n":1}']
        late = await queue.client.put(submitted["cancel_url"])
        assert (late.status_code, late.json()) == (400, {"status": "ALREADY_COMPLETED"})


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_the_replay_has_the_method_of_the_submission(database: Path, method: str) -> None:
    async with serving(echo, database) as queue:
        submitted = (await queue.client.request(method, "/fal/queue/run/acme/pictures/x?q=1")).json()
        assert (await follow(queue, submitted)).json() == [method, "/x", "q=1", ""]


@pytest.mark.parametrize("slash", ["", "/"])
async def test_every_alias_is_served_without_a_redirect(database: Path, slash: str) -> None:
    async with serving(echo, database) as queue:
        request_id = await queue.submit("POST", "/x")
        direct = (await queue.response(request_id)).content
        places = ["requests/{}", "requests/{}/response", "v1/fast/requests/{}", "v1/fast/requests/{}/response"]
        for app in ("run/acme/pictures", "run/workflows/acme/pictures", "run/123-demo"):
            for place in places[: 2 if app.endswith("demo") else 4]:
                url = f"/fal/queue/{app}/{place.format(request_id)}"
                assert (await queue.client.get(f"{url}{slash}")).content == direct, url
            for verb, method, code in (("status", "GET", 200), ("cancel", "PUT", 400)):
                answered = await queue.client.request(method, f"/fal/queue/{app}/requests/{request_id}/{verb}{slash}")
                assert answered.status_code == code
                assert answered.headers["x-fal-request-id"] == request_id
        gateway = [f"requests/{request_id}/response", f"{request_id}/response"]
        for url in gateway:
            assert (await queue.client.get(f"/fal/queue/{url}{slash}")).content == direct


async def test_status_urls_have_the_form_of_the_request(database: Path) -> None:
    async with serving(echo, database) as queue:
        request_id = await queue.submit("POST", "/x")
        for form in ("", "/run/acme/pictures", "/run/comfy/else/where"):
            status = (await queue.client.get(f"/fal/queue{form}/requests/{request_id}/status")).json()
            end = "" if form else "/response"
            assert status["response_url"] == f"{OURS}{form}/requests/{request_id}{end}"


# --- separate hosts for the queue

HOST = {"host": "Queue.Example.com:8443"}


async def test_the_root_of_a_host(database: Path) -> None:
    async with serving(echo, database, fal_hosts="queue.example.com") as queue:
        submitted = (await queue.client.post("/acme/pictures/generate", json={}, headers=HOST)).json()
        base = f"http://Queue.Example.com:8443/acme/pictures/requests/{submitted['request_id']}"
        urls = [submitted[name] for name in ("response_url", "status_url", "cancel_url")]
        assert urls == [base, f"{base}/status", f"{base}/cancel"]
        for name in ("status_url", "response_url", "cancel_url"):
            submitted[name] = urlsplit(submitted[name]).path

        async def over() -> bool:
            return (await queue.client.get(submitted["status_url"], headers=HOST)).status_code == 200

        await eventually(over)
        answered = await queue.client.get(submitted["response_url"], headers=HOST)
        assert answered.json() == ["POST", "/generate", "", "{}"]
        cancelled = await queue.client.put(submitted["cancel_url"], headers=HOST)
        assert (cancelled.status_code, cancelled.json()) == (400, {"status": "ALREADY_COMPLETED"})
        keys = await queue.client.get("/.well-known/jwks.json", headers=HOST)
        assert keys.headers["cache-control"] == "public, max-age=300"  # as in the documentation
        assert keys.json() == (await queue.client.get("/fal/queue/.well-known/jwks.json")).json()
        gateway = await queue.client.get(f"/fal/queue/requests/{submitted['request_id']}/status", headers=HOST)
        assert gateway.json()["status_url"].startswith("http://Queue.Example.com:8443/fal/queue/requests/")


async def test_the_application_cannot_be_reached_at_the_queues_host(database: Path) -> None:
    async with serving(echo, database, fal_hosts="queue.example.com") as queue:
        for path in (
            "/",
            "/health",
            "/favicon.ico",
            "/requests/x/status",
            f"/requests/{UNKNOWN}/status",
            "/.env/x",
            "/a/requests",
        ):
            refused = await queue.client.get(path, headers=HOST)
            assert refused.status_code == 404, path
            assert list(refused.json()) == ["detail"]
        assert (await queue.client.get("/health")).json() == ["GET", "/health", "", ""]
        assert (await queue.client.get("/acme/pictures")).json() == ["GET", "/acme/pictures", "", ""]
        assert stored_jobs(database) == 0


async def test_a_websocket_to_the_queues_host_is_refused(database: Path) -> None:
    app = QueueMiddleware(echo, database=database, fal_hosts=["queue.example.com"])
    scope = {"type": "websocket", "path": "/acme/pictures", "headers": [(b"host", b"queue.example.com")]}
    assert [message["type"] for message in (await call(app, scope)).messages] == ["websocket.close"]


# --- the app name


async def test_only_the_configured_app_name_is_accepted(database: Path) -> None:
    async with serving(echo, database, queue_app="acme/pictures", fal_hosts="queue.example.com") as queue:
        request_id = await queue.submit("POST", "/gateway")  # names no app
        for app in ("acme/pictures", "workflows/acme/pictures", "comfy/acme/pictures"):
            assert (await queue.client.post(f"/fal/queue/run/{app}/x")).status_code == 200
            assert (await queue.client.get(f"/{app}/requests/{request_id}/status", headers=HOST)).status_code in (200, 202)
        for app in ("acme/picture", "acme/pictures2", "evilacme/pictures", "wp-admin/setup.php", "acme/acme"):
            for path in ("", "/x", f"/requests/{request_id}", f"/requests/{request_id}/status"):
                refused = await queue.client.get(f"/{app}{path}", headers=HOST)
                assert refused.status_code == 404
                assert refused.json()["detail"] == f"this queue serves the app 'acme/pictures', not {app!r}"
        assert stored_jobs(database) == 4


async def test_an_earlier_name_of_the_app_is_accepted(database: Path) -> None:
    async with serving(echo, database, queue_app="123/demo") as queue:
        assert (await queue.client.post("/fal/queue/run/123-demo")).status_code == 200
        assert (await queue.client.post("/fal/queue/run/123/demo")).status_code == 200


# --- URLs

ROOTS = [
    # root_path, path of the request before the prefix, the path in the URLs
    ("", b"", ""),
    ("/api", b"/api", "/api"),
    ("/api", b"", "/api"),
    ("/api/", b"/api/", "/api"),
    ("/api/", b"/api", "/api"),
    ("/caf\u00e9", b"/caf%C3%A9", "/caf%C3%A9"),
]


@pytest.mark.parametrize(("root", "front", "shown"), ROOTS)
@pytest.mark.parametrize(("path", "base", "end"), [
    (b"/fal/queue/submit/x", "/fal/queue", "/response"),
    (b"/fal/queue/run/acme/pictures/x", "/fal/queue/run/acme/pictures", ""),
])  # fmt: skip
async def test_the_urls_contain_the_root_path_once(
    database: Path, root: str, front: bytes, shown: str, path: bytes, base: str, end: str
) -> None:
    seen: list[tuple[str, bytes]] = []

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.append((scope["root_path"], scope["raw_path"]))
        await respond(send)

    queued = QueueMiddleware(app, database=database, min_free_disk=0)
    async with connected(queued):
        scope = http_scope("POST", front + path) | {"root_path": root, "scheme": "https"}
        submitted = json.loads((await call(queued, scope)).body)
        request_id = submitted["request_id"]
        assert submitted["response_url"] == f"https://service.test{shown}{base}/requests/{request_id}{end}"
        assert submitted["status_url"] == f"https://service.test{shown}{base}/requests/{request_id}/status"
        await eventually(lambda: seen == [(root, front + b"/x")])
        status = http_scope("GET", front + f"{base}/requests/{request_id}/status".encode()) | {"root_path": root}
        assert (await call(queued, status)).status in (200, 202)


@pytest.mark.parametrize(
    ("path", "headers", "base"),
    [
        (b"/fal/queue/submit/x", [], "https://api.example.com/v2/fal/queue"),
        (b"/fal/queue/run/acme/pictures", [], "https://api.example.com/v2/fal/queue/run/acme/pictures"),
        (b"/acme/pictures", [(b"host", b"queue.example.com")], "https://queue.example.com/acme/pictures"),
    ],
    ids=["gateway", "queue", "host"],
)
async def test_public_url(database: Path, path: bytes, headers: list[Any], base: str) -> None:
    """At a separate host, public_url sets scheme and port, and the host stays the one that the client requires."""
    queued = QueueMiddleware(
        echo, database=database, min_free_disk=0, public_url="https://api.example.com/v2", fal_hosts=["queue.example.com"]
    )
    async with connected(queued):
        scope = http_scope("POST", path)
        scope["headers"] = headers or scope["headers"]
        submitted = json.loads((await call(queued, scope)).body)
        assert submitted["cancel_url"] == f"{base}/requests/{submitted['request_id']}/cancel"


# --- refusals


async def test_paths_are_checked_as_in_the_gateway_form(database: Path) -> None:
    async with serving(echo, database, paths=["/generate"], max_request_body=10) as queue:
        for path, code in (
            ("/generate", 200),
            ("/admin", 403),
            ("/..%2fadmin", 400),
            ("/fal/queue/submit/x", 400),
            ("/generate?fal_webhook=ftp%3A%2F%2Fx", 422),
            ("/generate?" + "x" * 2048, 414),
        ):
            assert (await queue.client.post(f"/fal/queue/run/acme/pictures{path}")).status_code == code, path
        assert (await queue.client.post("/fal/queue/run/acme/pictures/generate", content=b"x" * 11)).status_code == 413
        assert stored_jobs(database) == 1


@pytest.mark.parametrize("form", ["", "/run/acme/pictures"])
async def test_error_responses_contain_the_unknown_id(database: Path, form: str) -> None:
    async with serving(echo, database) as queue:
        for method, verb in (("GET", "/response"), ("GET", "/status"), ("PUT", "/cancel")):
            refused = await queue.client.request(method, f"/fal/queue{form}/requests/{UNKNOWN.upper()}{verb}")
            assert (refused.status_code, refused.json()) == (404, {"status": "NOT_FOUND"})
            assert refused.headers["x-fal-request-id"] == UNKNOWN
            malformed = await queue.client.request(method, f"/fal/queue{form}/requests/x{verb}")
            assert (malformed.status_code, malformed.json()) == (404, {"status": "NOT_FOUND"})
            assert "x-fal-request-id" not in malformed.headers


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
async def test_methods_that_cannot_be_queued(database: Path, method: str) -> None:
    async with serving(echo, database) as queue:
        refused = await queue.client.request(method, "/fal/queue/run/acme/pictures/x")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST, PUT, PATCH, DELETE")


async def test_an_endpoint_below_requests_is_reached_in_the_gateway_form(database: Path) -> None:
    async with serving(echo, database) as queue:
        assert (await queue.client.post("/fal/queue/run/acme/pictures/requests/new/thing")).status_code == 404
        assert (await queue.run("POST", "/requests/new/thing")).json()[1] == "/requests/new/thing"
