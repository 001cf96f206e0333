"""For Flask: a decorator that passes a verified webhook to the view, or responds with an error in its place.

Between the route and the view: `@site.post("/done")`, `@verified_webhook(verifier)`, `def done(webhook: VerifiedWebhook)`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from flask import abort, current_app, request
from flask.typing import ResponseReturnValue

from queue_middleware.errors import VerificationError

from . import LARGEST_BODY
from .verifier import VerifiedWebhook, WebhookVerifier

P = ParamSpec("P")


def verified_webhook(
    verifier: WebhookVerifier, *, max_body: int = LARGEST_BODY
) -> Callable[[Callable[Concatenate[VerifiedWebhook, P], ResponseReturnValue]], Callable[P, ResponseReturnValue]]:
    """A decorator that passes the webhook to the view as its first argument.

    Responds with 401 if the webhook is not valid, 503 if the key set cannot be fetched, and 413 above `max_body` bytes. After
    503 the sender delivers again.
    """

    def decorate(view: Callable[Concatenate[VerifiedWebhook, P], ResponseReturnValue]) -> Callable[P, ResponseReturnValue]:
        @wraps(view)
        def verified(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
            request.max_content_length = max_body
            try:
                webhook = verifier.verify_sync(request.headers.items(), request.get_data())
            except VerificationError as error:
                abort(error.status, error.detail)
            response: ResponseReturnValue = current_app.ensure_sync(view)(webhook, *args, **kwargs)
            return response

        return verified

    return decorate
