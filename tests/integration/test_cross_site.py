"""Pages of other sites: requests that they make a browser send are refused, and responses that they make it show do nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.database_template import create_empty_database
from tests.support.provider_server import Call, FakeProvider, Reply, providing
from tests.support.queue_client import Queue, eventually, serving, stored_jobs
from tests.support.raw_asgi import Message, Receive, Send, call, http_only, http_scope, respond

LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "accept": "text/html"}
FORM = {**LINK, "origin": "https://evil.example.net", "content-type": "text/plain"}
OLD_FORM = {"origin": "null", "content-type": "text/plain"}
UNKNOWN = "00000000-0000-7000-8000-000000000000"
COOKIE = [(b"content-type", b"text/html"), (b"set-cookie", b"session=theirs"), (b"clear-site-data", b'"*"')]


async def page(scope: Message, receive: Receive, send: Send) -> None:
    await respond(send, b"<script>alert(1)</script>", 200, COOKIE)


@pytest.fixture(scope="module")
async def refusing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Queue, Path]]:
    """One queue and its database, for the tests in which it refuses everything."""
    database = create_empty_database(tmp_path_factory.mktemp("refusing") / "queue.sqlite3")
    async with serving(http_only(page), database) as queue:
        yield queue, database


SUBMISSIONS = [
    ("POST", "/submit/x"), ("PUT", "/submit/x"), ("PATCH", "/submit/x"), ("DELETE", "/submit/x"), ("POST", "/submit"),
    ("POST", "/run/o/a"), ("POST", "/run/o/a/x"), ("POST", "/run/workflows/o/a/x"), ("POST", "/run/123-demo"),
]  # fmt: skip
CANCELS = [
    (method, route)
    for method in ("PUT", "POST")
    for route in ("/requests/{}/cancel", "/{}/cancel", "/run/o/a/requests/{}/cancel", "/run/o/a/x/requests/{}/cancel")
]


@pytest.mark.parametrize("sent", [FORM, OLD_FORM], ids=["form", "old-form"])
@pytest.mark.parametrize(("method", "route"), [*SUBMISSIONS, *CANCELS])
async def test_fals_routes_refuse_in_fals_format(
    refusing: tuple[Queue, Path], method: str, route: str, sent: dict[str, str]
) -> None:
    queue, database = refusing
    response = await queue.client.request(method, f"/fal/queue{route.format(UNKNOWN)}", headers=sent, content=b"{}")
    assert (response.status_code, list(response.json())) == (403, ["detail"])
    assert "cors_origins" in response.json()["detail"]
    assert stored_jobs(database) == 0


@pytest.mark.parametrize(
    ("method", "route"), [("GET", "/submit/x"), ("GET", "/submit"), ("GET", "/run/o/a/x"), ("GET", "/run/o/a")]
)
@pytest.mark.parametrize("dest", ["document", "image", "script", "iframe"])
async def test_links_and_images_submit_nothing(refusing: tuple[Queue, Path], method: str, route: str, dest: str) -> None:
    queue, database = refusing
    response = await queue.client.request(method, f"/fal/queue{route}", headers={**LINK, "sec-fetch-dest": dest})
    assert response.status_code == 403
    assert stored_jobs(database) == 0


@pytest.mark.parametrize("route", ["/v1/tasks", f"/v1/tasks/{UNKNOWN}/cancel", f"/v1/signals/{'0' * 64}"])
@pytest.mark.parametrize("sent", [FORM, OLD_FORM], ids=["form", "old-form"])
async def test_asyncqueues_routes_refuse_in_asyncqueues_format(
    refusing: tuple[Queue, Path], route: str, sent: dict[str, str]
) -> None:
    queue, database = refusing
    response = await queue.client.post(f"/fal/queue{route}", headers=sent, json={"targetUrl": "/x"})
    assert (response.status_code, list(response.json())) == (403, ["error"])
    assert stored_jobs(database) == 0


async def test_at_a_host_of_the_queue_too(database: Path) -> None:
    async with serving(http_only(page), database, fal_hosts="queue.example.com") as queue:
        for method, headers in (("POST", FORM), ("GET", LINK)):
            response = await queue.client.request(method, "/o/a/x", headers={**headers, "host": "queue.example.com"})
            assert response.status_code == 403
        own = {"host": "queue.example.com", "origin": "https://queue.example.com"}
        assert (await queue.client.post("/o/a/x", headers=own)).status_code == 200


async def test_the_body_of_a_refused_request_is_not_read(database: Path) -> None:
    async with serving(http_only(page), database) as queue:

        async def receive() -> Message:
            raise AssertionError("the body was read")

        app = queue.client._transport.app  # type: ignore[attr-defined]
        for path in (b"/fal/queue/submit/x", b"/fal/queue/v1/tasks"):
            scope = http_scope("POST", path, headers=[(b"sec-fetch-site", b"cross-site")])
            response = await call(app, scope, receive)
            assert (response.status, response.headers[b"connection"]) == (403, b"close")


async def test_pages_of_the_service_and_other_programs_are_not_refused(database: Path) -> None:
    async with serving(http_only(page), database) as queue:
        for sent in (
            {},
            {"sec-fetch-site": "same-origin", "origin": "http://service.test"},
            {"sec-fetch-site": "same-site", "origin": "http://www.service.test"},
            {"sec-fetch-site": "none"},
            {"origin": "http://service.test"},
            {"origin": "https://service.test"},
        ):
            request_id = await queue.submit("POST", "/x", headers=sent)
            await queue.response(request_id)
            again = await queue.client.put(f"/fal/queue/requests/{request_id}/cancel", headers=sent)
            assert again.status_code == 400
        link = {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        assert (await queue.client.get("/fal/queue/submit/x", headers=link)).status_code == 200


async def test_reading_is_not_refused(database: Path) -> None:
    async with serving(http_only(page), database) as queue:
        request_id = await queue.submit("POST", "/x")
        await queue.response(request_id)
        for route in (
            f"/requests/{request_id}/status",
            f"/requests/{request_id}/response",
            "/.well-known/jwks.json",
            "/v1/providers",
        ):
            assert (await queue.client.get(f"/fal/queue{route}", headers=LINK)).status_code == 200
        assert (await queue.client.post(f"/fal/queue/requests/{request_id}/status", headers=FORM)).status_code == 200


async def test_configured_origins_are_allowed(database: Path) -> None:
    page_of = {"origin": "https://app.example.com", "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}
    async with serving(http_only(page), database, cors_origins="https://app.example.com") as queue:
        request_id = await queue.submit("POST", "/x", headers=page_of)
        assert (await queue.client.put(f"/fal/queue/requests/{request_id}/cancel", headers=page_of)).status_code in (202, 400)
        assert (await queue.client.post("/fal/queue/v1/tasks", headers=page_of, json={"targetUrl": "/x"})).status_code == 201
        refused = await queue.client.post("/fal/queue/submit/x", headers=FORM)
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
    async with serving(http_only(page), database, cors_origins="*") as queue:
        assert (await queue.client.post("/fal/queue/submit/x", headers=FORM)).status_code == 200
        assert (await queue.client.get("/fal/queue/submit/x", headers=LINK)).status_code == 200


async def test_a_callback_needs_only_its_id(database: Path) -> None:
    async with serving(http_only(page), database) as queue:
        task = await queue.client.post("/fal/queue/v1/tasks", json={"targetUrl": "/x?{callback_url}", "maxWaitTime": 60})
        response = await queue.client.post(task.json()["callbackUrl"], headers=FORM, json={"status": "done"})
        assert response.status_code == 200


# --- what a browser shows

RESPONSES = [
    "/requests/{}/response",
    "/{}/response",
    "/run/o/a/requests/{}",
    "/run/o/a/requests/{}/response",
    "/run/o/a/x/requests/{}",
]


def guards(response: Any) -> tuple[Any, Any]:
    return response.headers.get("content-security-policy"), response.headers.get("x-content-type-options")


@pytest.mark.parametrize("route", RESPONSES)
async def test_a_link_to_a_response_sets_no_cookies(database: Path, route: str) -> None:
    async with serving(http_only(page), database) as queue:
        request_id = await queue.submit("POST", "/x")
        await queue.response(request_id)
        path = f"/fal/queue{route.format(request_id)}"
        for dest in ("document", "iframe", "embed"):
            shown = await queue.client.get(path, headers={**LINK, "sec-fetch-dest": dest})
            assert "set-cookie" not in shown.headers
            assert "clear-site-data" not in shown.headers
            assert guards(shown) == ("sandbox", "nosniff")
            assert shown.content == b"<script>alert(1)</script>"
        plain = await queue.client.get(path, headers={"accept": "text/html"})
        assert [pair for pair in plain.headers.raw if pair[0] != b"x-fal-request-id"] == COOKIE


async def by_target(queue: Queue, provider: FakeProvider) -> str:
    """The id of a task whose target is another host that responds at once."""
    return await made(queue, targetUrl=f"{provider.url}/page", method="GET")


async def by_poll(queue: Queue, provider: FakeProvider) -> str:
    config: dict[str, Any] = {"urlTemplate": "/asked", "statusPath": "status", "doneValues": ["done"], "failValues": []}
    config |= {"interval": 0.1, "resultUrlTemplate": "/page"}
    return await made(queue, targetUrl=f"{provider.url}/start", method="GET", pollConfig=config)


async def by_callback(queue: Queue, provider: FakeProvider) -> str:
    response = await queue.client.post("/fal/queue/v1/tasks", json={"targetUrl": "/x?{callback_url}", "maxWaitTime": 60})
    assert (await queue.client.post(response.json()["callbackUrl"], json={"html": "<script>"})).status_code == 200
    return str(response.json()["task"]["id"])


async def by_callback_of_a_submission(queue: Queue, provider: FakeProvider) -> str:
    return await queue.submit("POST", "/ask", content=b"{callback_url}")


async def by_signal(queue: Queue, provider: FakeProvider) -> str:
    response = await queue.client.post(
        "/fal/queue/v1/tasks", json={"targetUrl": "/x", "waitForSignal": True, "maxWaitTime": 60}
    )
    token = response.json()["signalToken"]
    assert (await queue.client.post(f"/fal/queue/v1/signals/{token}", json={"status": "completed"})).status_code == 200
    return str(response.json()["task"]["id"])


async def made(queue: Queue, **fields: Any) -> str:
    response = await queue.client.post("/fal/queue/v1/tasks", json=fields)
    assert response.status_code == 201, response.text
    return str(response.json()["task"]["id"])


@pytest.mark.parametrize("way", [by_target, by_poll, by_callback, by_signal, by_callback_of_a_submission])
async def test_a_response_of_an_external_service_is_never_a_page_of_this_site(database: Path, way: Any) -> None:
    called: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        called.append((await receive()).get("body", b"").decode())
        await respond(send, b"{}", 202, [(b"set-cookie", b"mine=1")])

    def provider(call: Call) -> Reply:
        if call.target != "/page":
            return Reply(body=json.dumps({"status": "done"}).encode())
        acting = [("access-control-allow-origin", "*"), ("x-accel-redirect", "/etc/passwd")]
        return Reply(body=b"<script>", headers=(*[(name.decode(), value.decode()) for name, value in COOKIE], *acting))

    options = {"outbound_allow": "127.0.0.1", "task_targets": "127.0.0.1"}
    async with providing(provider) as outside, serving(http_only(app), database, **options) as queue:
        request_id = await way(queue, outside)
        if way is by_callback_of_a_submission:
            await eventually(lambda: called)
            assert (await queue.client.post(called[0], json={"html": "<script>"})).status_code == 200
        for headers in ({}, LINK):
            await queue.reaches(request_id, "COMPLETED")
            shown = await queue.client.get(f"/fal/queue/requests/{request_id}/response", headers=headers)
            assert guards(shown) == ("sandbox", "nosniff")
            assert b"<script>" in shown.content or b"completed" in shown.content
            assert set(shown.headers) <= {
                "content-type", "content-length", "content-security-policy", "x-content-type-options", "x-fal-request-id",
            }  # fmt: skip


async def test_the_applications_own_response_to_a_task_is_unchanged(database: Path) -> None:
    async with serving(http_only(page), database) as queue:
        for call in ({"targetUrl": "/x"}, {"targetUrl": "/x", "method": "GET"}):
            shown = await queue.response(await made(queue, **call))
            assert shown.headers["set-cookie"] == "session=theirs"
            assert guards(shown) == (None, None)
