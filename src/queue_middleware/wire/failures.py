"""How a request that ends without an answer of the application is spelled (fal queue contract, section 7)."""

from __future__ import annotations

import json

from queue_middleware.models import ErrorType, Failure, Headers

STATUS: dict[ErrorType, int] = {
    ErrorType.REQUEST_TIMEOUT: 504,
    ErrorType.START_TIMEOUT: 504,
    ErrorType.RUNNER_DISCONNECTED: 503,
    ErrorType.RUNNER_INCOMPLETE_RESPONSE: 502,
    ErrorType.RUNNER_SERVER_ERROR: 500,
    ErrorType.CLIENT_CANCELLED: 499,
}
"""The HTTP status a failed request is answered with, and that its webhook names."""


def error_type(failure: Failure) -> str:
    """The word on the wire. A start deadline that passed is `request_timeout` there; `failure_headers` tells it apart."""
    word = ErrorType.REQUEST_TIMEOUT if failure.error_type is ErrorType.START_TIMEOUT else failure.error_type
    return word.value


def failure_body(failure: Failure) -> bytes:
    """`{"detail": …, "error_type": …}` as ASCII JSON with fal's `", "` and `": "`."""
    return json.dumps({"detail": failure.detail, "error_type": error_type(failure)}).encode("ascii")


def failure_headers(failure: Failure) -> Headers:
    """`X-Fal-Error-Type`; with a passed start deadline also `X-Fal-Request-Timeout-Type: user`. No content-type."""
    headers = ((b"x-fal-error-type", error_type(failure).encode("ascii")),)
    if failure.error_type is ErrorType.START_TIMEOUT:
        return (*headers, (b"x-fal-request-timeout-type", b"user"))
    return headers
