"""Pages of other origins: preflights, and which responses and headers such a page may read (WHATWG Fetch, "CORS protocol")."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.queue_client import Queue, serving

PAGE = "https://app.example.com"
OTHER_SITE = "https://evil.example.net"


async def work(request: Request) -> Response:
    return JSONResponse({"ok": True}, headers={"x-own": "1"})


plain = Starlette(routes=[Route("/work", work, methods=["GET", "POST"])])
with_own_rules = Starlette(
    routes=[Route("/work", work, methods=["GET", "POST"])],
    middleware=[
        Middleware(CORSMiddleware, allow_origins=["https://own.example.com"], allow_credentials=True, expose_headers=["x-own"])
    ],
)


async def preflight(queue: Queue, path: str, origin: str, method: str = "PUT", **headers: str) -> httpx.Response:
    return await queue.client.options(path, headers={"origin": origin, "access-control-request-method": method, **headers})


def listed(response: httpx.Response, name: str) -> set[str]:
    return {item.strip().lower() for line in response.headers.get_list(name) for item in line.split(",")}


@pytest.mark.parametrize(
    "path",
    [
        "/fal/queue/submit/work",
        "/fal/queue/requests/x/cancel",
        "/fal/queue/run/acme/pictures",
        "/fal/queue/.well-known/jwks.json",
    ],
)
async def test_preflights(database: Path, path: str) -> None:
    async with serving(plain, database, cors_origins=[PAGE, "http://localhost:3000"]) as queue:
        wanted = "authorization,content-type,x-fal-queue-priority,x-app-fal-disable-fallback"
        granted = await preflight(queue, path, PAGE, **{"access-control-request-headers": wanted})
        assert (granted.status_code, granted.content) == (204, b"")
        assert granted.headers["access-control-allow-origin"] == PAGE
        assert listed(granted, "access-control-allow-methods") == {"get", "post", "put", "patch", "delete"}
        assert granted.headers["access-control-allow-headers"] == wanted
        assert int(granted.headers["access-control-max-age"]) > 0
        assert listed(granted, "vary") == {"origin"}
        assert "access-control-allow-credentials" not in granted.headers
        unsaid = await preflight(queue, path, "http://localhost:3000")
        assert {"authorization", "content-type", "x-fal-queue-priority", "idempotency-key", "prefer"} <= listed(
            unsaid, "access-control-allow-headers"
        )


async def test_preflights_of_other_origins_are_refused_with_the_reason(database: Path) -> None:
    async with serving(plain, database, cors_origins=[PAGE]) as queue:
        for origin in (OTHER_SITE, "null", f"{PAGE}.evil.net", "http://app.example.com"):
            refused = await preflight(queue, "/fal/queue/submit/work", origin)
            assert refused.status_code == 403
            assert origin in refused.json()["detail"]
            assert "cors_origins" in refused.json()["detail"]
            assert not [name for name in refused.headers if name.startswith("access-control-")]


async def test_options_without_the_preflight_headers_is_an_ordinary_request(database: Path) -> None:
    async with serving(plain, database, cors_origins=[PAGE]) as queue:
        assert (await queue.client.options("/fal/queue/submit/work", headers={"origin": PAGE})).status_code == 405
        assert (await queue.client.options("/fal/queue/submit/work")).status_code == 405


async def every_kind_of_response(queue: Queue, **headers: str) -> list[httpx.Response]:
    """One response of each kind: submission, status, response, refusals. A page of the application made the submissions."""
    own = {"origin": "https://own.example.com", "sec-fetch-site": "same-origin"}
    client, known = queue.client, await queue.submit("POST", "/work", headers=own)
    await queue.response(known)
    return [
        await client.post("/fal/queue/submit/work", headers=headers),
        await client.get(f"/fal/queue/requests/{known}/status", headers=headers),
        await client.get(f"/fal/queue/requests/{known}/response", headers=headers),
        await client.put(f"/fal/queue/requests/{known}/cancel", headers=headers),
        await client.get("/fal/queue/requests/x/status", headers=headers),
        await client.get("/fal/queue/nothing", headers=headers),
        await client.post("/fal/queue/submit/work?fal_max_queue_length=x", headers=headers),
        await client.head("/fal/queue/submit/work", headers=headers),
        await client.get("/fal/queue/.well-known/jwks.json", headers=headers),
    ]


@pytest.mark.parametrize("app", [plain, with_own_rules], ids=["plain", "with-own-rules"])
async def test_the_page_can_read_every_response(database: Path, app: Any) -> None:
    async with serving(app, database, cors_origins=[PAGE]) as queue:
        for response in await every_kind_of_response(queue, origin=PAGE):
            assert response.headers.get_list("access-control-allow-origin") == [PAGE], response.url
            assert "access-control-allow-credentials" not in response.headers
            exposed = {
                "x-fal-request-id",
                "x-fal-request-timeout-type",
                "x-fal-error-type",
                "retry-after",
                "idempotency-replayed",
                "preference-applied",
            }
            assert exposed <= listed(response, "access-control-expose-headers")
            assert "origin" in listed(response, "vary")


async def test_headers_that_the_application_exposes_stay_exposed(database: Path) -> None:
    async with serving(with_own_rules, database, cors_origins=[PAGE]) as queue:
        headers = {"origin": "https://own.example.com", "sec-fetch-site": "same-origin"}
        request_id = await queue.submit("POST", "/work", headers=headers)
        await queue.response(request_id)
        response = await queue.client.get(f"/fal/queue/requests/{request_id}/response", headers={"origin": PAGE})
        assert response.headers.get_list("access-control-allow-origin") == [PAGE]
        assert {"x-own", "x-fal-request-id"} <= listed(response, "access-control-expose-headers")
        assert response.headers["x-own"] == "1"


async def test_other_origins_and_direct_clients_receive_no_cors_headers(database: Path) -> None:
    async with serving(plain, database, cors_origins=[PAGE]) as queue:
        for headers in ({"origin": OTHER_SITE}, {}):
            for response in await every_kind_of_response(queue, **headers):
                assert not [name for name in response.headers if name.startswith("access-control-")]
                assert listed(response, "vary") - {"prefer"} == {"origin"}


async def test_a_queue_open_to_all_origins(database: Path) -> None:
    async with serving(plain, database, cors_origins="*") as queue:
        for response in [
            *await every_kind_of_response(queue, origin=OTHER_SITE),
            await preflight(queue, "/fal/queue/submit/x", OTHER_SITE),
        ]:
            assert response.headers["access-control-allow-origin"] == "*"
            assert listed(response, "vary") <= {"prefer"}


async def test_at_a_host_of_the_queue_too(database: Path) -> None:
    async with serving(plain, database, cors_origins=[PAGE], fal_hosts="queue.example.com") as queue:
        headers = {"host": "queue.example.com", "origin": PAGE}
        response = await queue.client.post("/acme/pictures/work", headers=headers)
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, PAGE)
        assert (await preflight(queue, "/acme/pictures/work", PAGE, host="queue.example.com")).status_code == 204


async def test_the_applications_own_routes_are_unchanged(database: Path) -> None:
    async with serving(with_own_rules, database, cors_origins=[PAGE]) as queue:
        direct = await queue.client.get("/work", headers={"origin": "https://own.example.com"})
        assert direct.headers["access-control-allow-origin"] == "https://own.example.com"
        assert direct.headers["access-control-allow-credentials"] == "true"
        assert "access-control-allow-origin" not in (await queue.client.get("/work", headers={"origin": PAGE})).headers


async def test_cors_is_off_by_default(database: Path) -> None:
    async with serving(with_own_rules, database) as queue:
        assert (await preflight(queue, "/fal/queue/submit/work", PAGE)).status_code == 405
        responses = await every_kind_of_response(queue, origin="https://own.example.com")
        allowed = [response.headers.get("access-control-allow-origin") for response in responses]
        assert allowed == [None, None, "https://own.example.com", *[None] * 6]  # the stored response is unchanged
