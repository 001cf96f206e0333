"""HTTP status, body and headers of a request that failed (docs/reference/protocols/fal.md, section 7)."""

from __future__ import annotations

import json

from .models import ErrorType, Failure, Headers

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
"""The HTTP status of the response to a failed request, which its webhook names too."""

_FAL_ERROR_TYPE: dict[ErrorType, ErrorType] = {
    ErrorType.START_TIMEOUT: ErrorType.REQUEST_TIMEOUT,
    ErrorType.WAIT_TIMEOUT: ErrorType.REQUEST_TIMEOUT,
    ErrorType.PROVIDER_FAILED: ErrorType.RUNNER_SERVER_ERROR,
}
"""Error types that fal does not have, mapped to the nearest that it has."""


def error_type(failure: Failure) -> str:
    """The error type that clients see. A missed start deadline is `request_timeout`; `failure_headers` distinguishes it."""
    return _FAL_ERROR_TYPE.get(failure.error_type, failure.error_type).value


def failure_body(failure: Failure) -> bytes:
    """`{"detail": …, "error_type": …}` as ASCII JSON with fal's `", "` and `": "`."""
    return json.dumps({"detail": failure.detail, "error_type": error_type(failure)}).encode("ascii")


def failure_headers(failure: Failure) -> Headers:
    """`X-Fal-Error-Type`; with a missed start deadline also `X-Fal-Request-Timeout-Type: user`. No content-type."""
    headers = ((b"x-fal-error-type", error_type(failure).encode("ascii")),)
    if failure.error_type is ErrorType.START_TIMEOUT:
        return (*headers, (b"x-fal-request-timeout-type", b"user"))
    return headers
