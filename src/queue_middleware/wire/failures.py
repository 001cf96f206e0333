"""How it is spelled that there is no answer of the application: requests that failed, calls that are refused (section 7)."""

from __future__ import annotations

import json

from queue_middleware.errors import QueueError, StillInProgress
from queue_middleware.models import ErrorType, Failure, Headers

STATUS: dict[ErrorType, int] = {
    ErrorType.REQUEST_TIMEOUT: 504,
    ErrorType.START_TIMEOUT: 504,
    ErrorType.RUNNER_DISCONNECTED: 503,
    ErrorType.RUNNER_INCOMPLETE_RESPONSE: 502,
    ErrorType.RUNNER_SERVER_ERROR: 500,
    ErrorType.RUNNER_CONNECTION_ERROR: 503,
    ErrorType.RUNNER_CONNECTION_REFUSED: 503,
    ErrorType.WAIT_TIMEOUT: 504,
    ErrorType.PROVIDER_FAILED: 500,
    ErrorType.CLIENT_CANCELLED: 499,
}
"""The HTTP status a failed request is answered with, and that its webhook names."""


_FALS_WORD: dict[ErrorType, ErrorType] = {
    ErrorType.START_TIMEOUT: ErrorType.REQUEST_TIMEOUT,
    ErrorType.WAIT_TIMEOUT: ErrorType.REQUEST_TIMEOUT,
    ErrorType.PROVIDER_FAILED: ErrorType.RUNNER_SERVER_ERROR,
}
"""For what fal has no word of its own."""


def error_type(failure: Failure) -> str:
    """The word on the wire. A start deadline that passed is `request_timeout` there; `failure_headers` tells it apart."""
    return _FALS_WORD.get(failure.error_type, failure.error_type).value


def failure_body(failure: Failure) -> bytes:
    """`{"detail": …, "error_type": …}` as ASCII JSON with fal's `", "` and `": "`."""
    return json.dumps({"detail": failure.detail, "error_type": error_type(failure)}).encode("ascii")


def failure_headers(failure: Failure) -> Headers:
    """`X-Fal-Error-Type`; with a passed start deadline also `X-Fal-Request-Timeout-Type: user`. No content-type."""
    headers = ((b"x-fal-error-type", error_type(failure).encode("ascii")),)
    if failure.error_type is ErrorType.START_TIMEOUT:
        return (*headers, (b"x-fal-request-timeout-type", b"user"))
    return headers


_REFUSED = {400: "bad_request", 500: "internal_error"}
"""fal's words for refusals, by status; for the others it has none."""


def refusal(error: QueueError) -> tuple[bytes, Headers]:
    """Body and headers of a call that we refuse: `{"detail": …}`, with `error_type` where fal has a word for it."""
    word = None if isinstance(error, StillInProgress) else _REFUSED.get(error.status)
    if word is None:
        return json.dumps({"detail": error.detail}).encode("ascii"), error.headers
    body = json.dumps({"detail": error.detail, "error_type": word}).encode("ascii")
    return body, (*error.headers, (b"x-fal-error-type", word.encode("ascii")))
