"""For FastAPI: a dependency that gives the handler a webhook, or answers in its place.

    verifier = WebhookVerifier(JWKS_URL)
    Webhook = Annotated[VerifiedWebhook, Depends(verified_webhook(verifier))]

    @app.post("/done")
    async def done(webhook: Webhook) -> None: ...

In Starlette it is called with the request: `webhook = await verified(request)`, where `verified = verified_webhook(verifier)`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request

from queue_middleware.errors import VerificationError
from queue_middleware.verify import VerifiedWebhook, WebhookVerifier

from . import LARGEST_BODY

# FastAPI reads the annotations of a dependency when it is declared, and looks them up in this module.
Dependency = Callable[[Request], Awaitable[VerifiedWebhook]]


def verified_webhook(verifier: WebhookVerifier, *, max_body: int = LARGEST_BODY) -> Dependency:
    """The dependency. 401 for a webhook that cannot be trusted, 503 where the keys cannot be had, 413 above `max_body` bytes.

    A sender who gets 503 delivers again later. The reason is the answer's `detail`, and tells nothing that is secret.
    """

    async def dependency(request: Request) -> VerifiedWebhook:
        body = await _read(request, max_body)
        try:
            return await verifier.verify(request.headers.items(), body)
        except VerificationError as error:
            raise HTTPException(error.status, error.detail) from error

    return dependency


async def _read(request: Request, most: int) -> bytes:
    """The body, as far as a stranger may fill our memory."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, f"the webhook is larger than {most} bytes")
    return bytes(body)
