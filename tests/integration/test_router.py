"""What the router does for every group of routes: prefix, checks in their order, shapes of errors, unread bodies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from queue_middleware import QueueMiddleware
from queue_middleware.web import router
from tests.support.raw_asgi import Message, RawResponse, Receive, Send, call, http_scope, respond

KEY = "acme:a-secret-key"
CROSS_SITE = ((b"origin", b"https://evil.example"), (b"sec-fetch-site", b"cross-site"))
SUBMIT, STATUS, CANCEL = "/submit/work", "/requests/x/status", "/requests/x/cancel"
TASKS, CALLBACK, SIGNAL = "/v1/tasks", f"/v1/callbacks/{'0' * 64}", f"/v1/signals/{'0' * 64}"


async def application(scope: Message, receive: Receive, send: Send) -> None:
    await respond(send, b"of the application")


def queue(database: Path, **options: Any) -> QueueMiddleware:
    return QueueMiddleware(application, database=database, min_free_disk=0, name="router", **options)


async def ask(app: QueueMiddleware, method: str, path: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> RawResponse:
    return await call(app, http_scope(method, f"/fal/queue{path}".encode(), headers=headers))


@pytest.mark.parametrize(
    ("path", "shape"), [("/nope", {"detail"}), (SUBMIT, {"detail"}), ("/v1/nope", {"error"}), (TASKS, {"error"})]
)
async def test_an_error_has_the_shape_of_its_group(database: Path, path: str, shape: set[str]) -> None:
    told = await ask(queue(database), "POST", path)
    assert told.status == (404 if "nope" in path else 503)
    assert set(json.loads(told.body)) == shape


@pytest.mark.parametrize("path", ["/v1x/tasks", "/v1", "/run/v1/tasks", "/%76%31/tasks"])
async def test_only_paths_below_v1_are_those_of_tasks(database: Path, path: str) -> None:
    told = await ask(queue(database), "POST", path)
    assert "error" not in json.loads(told.body)


@pytest.mark.parametrize(
    ("method", "path", "closes"),
    [
        ("POST", SUBMIT, True), ("PUT", SUBMIT, True), ("GET", STATUS, False),
        ("POST", TASKS, True), ("POST", CALLBACK, True), ("POST", SIGNAL, True),
        ("GET", TASKS, False), ("GET", CALLBACK, False),
    ],
)  # fmt: skip
async def test_a_connection_is_closed_if_the_body_was_not_read(database: Path, method: str, path: str, closes: bool) -> None:
    told = await ask(queue(database), method, path)
    assert told.status in (405, 503)
    assert (told.headers.get(b"connection") == b"close") is closes


@pytest.mark.parametrize(
    ("method", "path", "is_refused"),
    [
        ("POST", SUBMIT, True), ("PUT", CANCEL, True), ("GET", STATUS, False), ("GET", "/openapi.json", False),
        ("POST", TASKS, True), ("POST", f"{TASKS}/x/cancel", True), ("POST", SIGNAL, True), ("POST", CALLBACK, False),
        ("GET", TASKS, False),
    ],
)  # fmt: skip
async def test_other_sites_are_refused_first(database: Path, method: str, path: str, is_refused: bool) -> None:
    """Before the queue runs, and before a key is asked for: it is a browser that is refused, whatever it sends."""
    told = await ask(queue(database, api_keys=[KEY]), method, path, CROSS_SITE)
    assert told.status == (403 if is_refused else 503)


async def test_every_route_but_the_public_ones_needs_a_key(database: Path) -> None:
    closed = [
        ("POST", SUBMIT), ("GET", STATUS), ("PUT", CANCEL), ("GET", "/requests/x/response"),
        ("GET", "/requests/x/status/stream"),
        ("POST", TASKS), ("GET", TASKS), ("GET", f"{TASKS}/x"), ("POST", f"{TASKS}/x/cancel"),
    ]  # fmt: skip
    public = {
        ("GET", "/.well-known/jwks.json"): 200, ("GET", "/openapi.json"): 200, ("GET", "/v1/providers"): 200,
        ("POST", CALLBACK): 404, ("POST", SIGNAL): 404, ("POST", "/v1/providers"): 405, ("POST", "/nope"): 404,
    }  # fmt: skip
    expected = {**dict.fromkeys(closed, 401), **public}
    app = queue(database, api_keys=[KEY])
    async with app.running():
        found = {route: (await ask(app, *route)).status for route in expected}
    assert found == expected


async def test_what_is_not_below_the_prefix_is_the_applications(database: Path) -> None:
    app = queue(database)
    for path in (b"/fal/queuex", b"/fal", b"/v1/tasks", b"/x/fal/queue/submit"):
        assert (await call(app, http_scope("POST", path))).body == b"of the application"


@pytest.mark.parametrize("headers", [(), CROSS_SITE], ids=["own", "cross-site"])
@pytest.mark.parametrize("path", [SUBMIT, STATUS, CANCEL, "/run/me/app/x", "/openapi.json", TASKS, CALLBACK, "/nope"])
async def test_a_remembered_path_is_treated_like_a_new_one(
    database: Path, path: str, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    app = queue(database, api_keys=[KEY])
    for method in ("GET", "POST", "DELETE") * 2:
        new, remembered = (
            await ask(queue(database, api_keys=[KEY]), method, path, headers),
            await ask(app, method, path, headers),
        )
        assert (new.status, new.body) == (remembered.status, remembered.body)
        assert new.headers.get(b"connection") == remembered.headers.get(b"connection")


@pytest.mark.parametrize("course", ["plain"], indirect=True)  # the other remembers nothing
async def test_few_short_paths_without_secrets_are_remembered(
    database: Path, monkeypatch: pytest.MonkeyPatch, course: str
) -> None:
    app = queue(database)
    remembered = app._queue._matches
    for path in (CALLBACK, SIGNAL, f"{TASKS}/x", "/nope", f"{SUBMIT}/{'x' * 1024}"):
        await ask(app, "POST", path)
    scope = http_scope("POST", b"/fal/queue/submit/work")
    await call(app, {**scope, "raw_path": b"/fal/queue/submit/work?key=secret"})
    assert not remembered
    monkeypatch.setattr(router, "_MAX_REMEMBERED", 3)
    for number in range(8):
        await ask(app, "POST", f"{SUBMIT}/{number}")
        assert 0 < len(remembered) <= 3
