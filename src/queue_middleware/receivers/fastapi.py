"""For FastAPI: a dependency that passes a verified webhook to the handler, or responds with an error in its place.

    verifier = WebhookVerifier(JWKS_URL)
    Webhook = Annotated[VerifiedWebhook, Depends(verified_webhook(verifier))]

    @app.post("/done")
    async def done(webhook: Webhook) -> None: ...

In Starlette, call it with the request: `webhook = await verified(request)`, where `verified = verified_webhook(verifier)`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request

from queue_middleware.errors import VerificationError

from . import LARGEST_BODY
from .verifier import VerifiedWebhook, WebhookVerifier

# FastAPI resolves the annotations of a dependency in this module when the dependency is declared.
Dependency = Callable[[Request], Awaitable[VerifiedWebhook]]


def verified_webhook(verifier: WebhookVerifier, *, max_body: int = LARGEST_BODY) -> Dependency:
    """A dependency that returns the verified webhook.

    Responds with 401 if it is not valid, 503 if the key set cannot be fetched, and 413 above `max_body` bytes. After 503 the
    sender delivers again. The response's `detail` has the reason and contains nothing secret.
    """

    async def dependency(request: Request) -> VerifiedWebhook:
        body = await _read_body(request, max_body)
        try:
            return await verifier.verify(request.headers.items(), body)
        except VerificationError as error:
            raise HTTPException(error.status, error.detail) from error

    return dependency


async def _read_body(request: Request, max_body: int) -> bytes:
    """The body, bounded because the sender is not verified yet."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_body:
            raise HTTPException(413, f"the webhook is larger than {max_body} bytes")
    return bytes(body)
