"""For Flask: a decorator that gives the view a webhook, or answers in its place.

Between the route and the view: `@site.post("/done")`, `@verified_webhook(verifier)`, `def done(webhook: VerifiedWebhook)`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from flask import abort, current_app, request
from flask.typing import ResponseReturnValue

from queue_middleware.errors import VerificationError
from queue_middleware.verify import VerifiedWebhook, WebhookVerifier

from . import LARGEST_BODY

P = ParamSpec("P")


def verified_webhook(
    verifier: WebhookVerifier, *, max_body: int = LARGEST_BODY
) -> Callable[[Callable[Concatenate[VerifiedWebhook, P], ResponseReturnValue]], Callable[P, ResponseReturnValue]]:
    """The decorator; it goes under the route. The view gets the webhook as its first argument.

    401 for a webhook that cannot be trusted, 503 where the keys cannot be had, 413 above `max_body` bytes. A sender who gets
    503 delivers again later.
    """

    def decorate(view: Callable[Concatenate[VerifiedWebhook, P], ResponseReturnValue]) -> Callable[P, ResponseReturnValue]:
        @wraps(view)
        def verified(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
            request.max_content_length = max_body
            try:
                webhook = verifier.verify_sync(request.headers.items(), request.get_data())
            except VerificationError as error:
                abort(error.status, error.detail)
            answer: ResponseReturnValue = current_app.ensure_sync(view)(webhook, *args, **kwargs)
            return answer

        return verified

    return decorate
