from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from queue_middleware.receivers.fastapi import verified_webhook
from queue_middleware.verify import VerifiedWebhook, WebhookVerifier
from tests.support.webhook_sender import BODY, JWKS_URL, NOW, Sender


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def verifier(sender) -> WebhookVerifier:
    return WebhookVerifier(JWKS_URL, client=sender.client, clock=lambda: NOW)


@pytest.fixture
async def site(verifier) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    dependency = verified_webhook(verifier, max_body=1000)

    @app.post("/done")
    async def done(webhook: Annotated[VerifiedWebhook, Depends(dependency)]) -> dict[str, object]:
        return {"id": webhook.webhook_id, "payload": webhook.json()["payload"]}

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://site") as client:
        yield client


async def test_the_handler_receives_the_verified_webhook(sender, site):
    for headers in (sender.webhook(), sender.standard(), {**sender.webhook(), **sender.standard()}):
        response = await site.post("/done", headers=headers, content=BODY)
        assert response.status_code == 200
        assert response.json()["payload"] == {"ä": 1}


async def test_a_bad_webhook_does_not_reach_the_handler(sender, site):
    response = await site.post("/done", headers=sender.webhook(), content=BODY + b" ")
    assert response.status_code == 401
    assert "changed in transit" in response.json()["detail"]
    assert (await site.post("/done", content=BODY)).status_code == 401


async def test_without_keys_the_response_is_503(sender, site):
    sender.response = httpx.ConnectError("down")
    assert (await site.post("/done", headers=sender.webhook(), content=BODY)).status_code == 503


async def test_a_repeated_header_is_refused(sender, site):
    headers = [*sender.webhook().items(), ("x-fal-webhook-request-id", "id")]
    response = await site.post("/done", headers=headers, content=BODY)
    assert response.json() == {"detail": "the header x-fal-webhook-request-id is repeated"}


async def test_the_size_of_a_body_is_limited_before_it_is_verified(sender, site):
    async def long() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    response = await site.post("/done", headers=sender.webhook(), content=long())
    assert (response.status_code, response.json()) == (413, {"detail": "the webhook is larger than 1000 bytes"})
    assert sender.fetches == 0
    body = BODY + b" " * (1000 - len(BODY))
    assert (await site.post("/done", headers=sender.webhook(body=body), content=body)).status_code == 200


async def test_the_documentation_of_the_application_does_not_mention_it(site):
    """A dependency on the request has no parameters of its own."""
    operation = (await site.get("/openapi.json")).json()["paths"]["/done"]["post"]
    assert "parameters" not in operation
    assert "requestBody" not in operation


async def test_in_starlette_the_dependency_is_called_explicitly(sender, verifier):
    verified = verified_webhook(verifier)

    async def done(request: Request) -> JSONResponse:
        return JSONResponse((await verified(request)).request_id)

    transport = httpx.ASGITransport(Starlette(routes=[Route("/done", done, methods=["POST"])]))
    async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
        assert (await client.post("/done", headers=sender.webhook(), content=BODY)).json() == "id"
        assert (await client.post("/done", headers=sender.webhook(), content=b"")).status_code == 401
