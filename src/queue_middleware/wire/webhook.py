"""fal's webhook: the bytes that are sent, the message that is signed, the headers beside it (fal queue contract, section 9)."""

from __future__ import annotations

import hashlib
import json
from urllib.parse import quote

import msgspec

from queue_middleware.models import ErrorType, Failure, Headers, JobState, Result, StoredResponse

from .failures import STATUS, failure_body

NOT_JSON = (
    "Response payload is not JSON serializable. "
    "Either return a JSON serializable object or use the queue endpoint to retrieve the response."
)
CANCELLED = "Request was cancelled"
ANONYMOUS = "anonymous"
"""The user id where there is no identity; never empty, because receivers take an empty header for a missing one."""

_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
"""What a header carries as it is."""

REQUEST_ID = b"x-fal-webhook-request-id"
USER_ID = b"x-fal-webhook-user-id"
TIMESTAMP = b"x-fal-webhook-timestamp"
SIGNATURE = b"x-fal-webhook-signature"


def webhook_body(result: Result) -> bytes:
    """The JSON that announces a finished request: keys sorted, `", "` and `": "`, the application's JSON byte for byte.

    `result.response.body` must hold the whole answer, earlier parts included. Raises `ValueError` where the job has neither an
    answer nor a failure, because then there is nothing true to say.
    """
    if result.response is not None:
        return _answered(result.job.request_id, result.response)
    if result.job.state is JobState.CANCELLED:
        failure = result.job.failure or Failure(ErrorType.CLIENT_CANCELLED, CANCELLED)
        return _envelope(result.job.request_id, CANCELLED, failure_body(failure))
    if result.job.failure is None:
        raise ValueError(f"request {result.job.request_id} has neither an answer nor a failure")
    failure = result.job.failure
    return _envelope(result.job.request_id, _invalid(STATUS[failure.error_type]), failure_body(failure))


def user_id(identity: str | None) -> str:
    """Whom a request belongs to, percent-encoded where it is more than a header carries; never empty."""
    return quote(identity, safe=_PLAIN) if identity else ANONYMOUS


def signed_message(request_id: str, user_id: str, timestamp: str, body: bytes) -> bytes:
    """What fal signs with Ed25519: four lines, the last the SHA-256 of the raw body in hex, no newline at the end."""
    return "\n".join((request_id, user_id, timestamp, hashlib.sha256(body).hexdigest())).encode()


def webhook_headers(request_id: str, user_id: str, timestamp: str, signature: bytes) -> Headers:
    """The four headers of fal: `user_id` that is never empty, `timestamp` in Unix seconds, `signature` of 64 raw bytes."""
    return (
        (REQUEST_ID, request_id.encode("ascii")),
        (USER_ID, user_id.encode("ascii")),
        (TIMESTAMP, timestamp.encode("ascii")),
        (SIGNATURE, signature.hex().encode("ascii")),
    )


def _answered(request_id: str, response: StoredResponse) -> bytes:
    error = None if 200 <= response.status < 300 else _invalid(response.status)
    if _is_json(response):
        return _envelope(request_id, error, response.body)
    return _envelope(request_id, error, b"null", NOT_JSON)


def _envelope(request_id: str, error: str | None, payload: bytes, payload_error: str | None = None) -> bytes:
    request = json.dumps(request_id).encode("ascii")
    excuse = f', "payload_error": {json.dumps(payload_error)}'.encode("ascii") if payload_error else b""
    return b"".join(
        (
            b'{"error": ', json.dumps(error).encode("ascii"),
            b', "gateway_request_id": ', request,
            b', "payload": ', payload, excuse,
            b', "request_id": ', request,
            b', "status": ', b'"ERROR"}' if error else b'"OK"}',
        )
    )  # fmt: skip


def _invalid(status: int) -> str:
    return f"Invalid status code: {status}"


def _is_json(response: StoredResponse) -> bool:
    return _has_json_type(response.headers) and _parses(response.body)


def _has_json_type(headers: Headers) -> bool:
    """The JSON MIME types of the WHATWG's MIME Sniffing standard, §4.6."""
    value = next((value for name, value in headers if name == b"content-type"), b"")
    essence = value.split(b";", 1)[0].strip().lower()
    return essence in (b"application/json", b"text/json") or essence.endswith(b"+json")


def _parses(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
        # Skipping over a value checks its grammar but not the bytes inside its strings.
        return body.isascii() or bool(body.decode("utf-8"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
