"""fal's webhook format: body, signed message and headers (docs/reference/protocols/fal.md, section 9)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from queue_middleware.jobs.failures import STATUS, failure_body
from queue_middleware.jobs.models import Headers, JobResult, JobState, StoredResponse, WebhookKind
from queue_middleware.jobs.outcomes import CANCELLED
from queue_middleware.syntax.json_text import embeddable

NOT_JSON = (
    "Response payload is not JSON serializable. "
    "Either return a JSON serializable object or use the queue endpoint to retrieve the response."
)
ANONYMOUS = "anonymous"
"""The user id of a request without an identity; not empty, because receivers treat an empty header as a missing one."""

_UNQUOTED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
"""Characters of a user id that are not percent-encoded in a header."""

REQUEST_ID = b"x-fal-webhook-request-id"
USER_ID = b"x-fal-webhook-user-id"
TIMESTAMP = b"x-fal-webhook-timestamp"
SIGNATURE = b"x-fal-webhook-signature"


def webhook_body(result: JobResult) -> bytes:
    """The JSON about a finished request: sorted keys, `", "` and `": "` as separators, the application's JSON byte for byte.

    `result.response.body` must hold the whole response body, without chunks that are stored apart. Raises `ValueError` if the
    job has neither a response nor a failure.
    """
    return b"".join(split_body(result))


def split_body(result: JobResult) -> tuple[bytes, bytes, bytes]:
    """`webhook_body` in three pieces. The second is the payload: the same bytes object as the response body if that is JSON."""
    if result.response is not None:
        return _response_body(result.job.request_id, result.response)
    if result.job.state is JobState.CANCELLED:
        return _envelope(result.job.request_id, CANCELLED.detail, failure_body(result.job.failure or CANCELLED))
    if result.job.failure is None:
        raise ValueError(f"request {result.job.request_id} has neither a response nor a failure")
    failure = result.job.failure
    return _envelope(result.job.request_id, _status_error(STATUS[failure.error_type]), failure_body(failure))


def user_id(identity: str | None) -> str:
    """The identity that a request belongs to, percent-encoded as needed for a header; never empty."""
    return quote(identity, safe=_UNQUOTED) if identity else ANONYMOUS


def oversized_body(result: JobResult, max_payload: int, url: str) -> bytes:
    """For a response that is larger than `max_payload` bytes: the envelope without it, with the URL to fetch it from."""
    response = result.response
    if response is None:
        raise ValueError(f"request {result.job.request_id} has no response")
    reason = f"Response payload has {response.size} bytes, more than {max_payload}. Fetch it from {url}"
    return b"".join(_envelope(result.job.request_id, _error_for(response.status), b"null", reason))


def event_body(kind: WebhookKind, request_id: str, webhook_id: str, data: Mapping[str, Any]) -> bytes:
    """The JSON about an event before the end of a request: fal's envelope with status, `type` and `timestamp`.

    `data` has `at` in milliseconds since 1970, and for progress also `fraction` and `stage`. fal has no such webhooks;
    `type` and `timestamp` are those that Standard Webhooks recommends. `webhook_id` is in the body for receivers that verify
    fal's headers only, which have the same id in all webhooks of a request.
    """
    at = datetime.fromtimestamp(data["at"] / 1000, UTC)
    body: dict[str, Any] = {
        "error": None,
        "gateway_request_id": request_id,
        "payload": None,
        "request_id": request_id,
        "status": "IN_PROGRESS",
        "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "type": f"request.{kind}",
        "webhook_id": webhook_id,
    }
    if kind is WebhookKind.PROGRESS:
        body["progress"] = {"fraction": data["fraction"], "stage": data["stage"]}
    return json.dumps(body, sort_keys=True).encode("ascii")


def signed_message(request_id: str, user_id: str, timestamp: str, body: bytes) -> bytes:
    """The message that fal signs: four lines, the last one the SHA-256 of the raw body in hex, without a final newline."""
    return digest_message(request_id, user_id, timestamp, hashlib.sha256(body).hexdigest())


def digest_message(request_id: str, user_id: str, timestamp: str, digest: str) -> bytes:
    """`signed_message` from the SHA-256 of the body, in hex."""
    return "\n".join((request_id, user_id, timestamp, digest)).encode()


def webhook_headers(request_id: str, user_id: str, timestamp: str, signature: bytes) -> Headers:
    """The four headers of fal. `user_id` is not empty, `timestamp` is in Unix seconds, `signature` has 64 bytes."""
    return (
        (REQUEST_ID, request_id.encode("ascii")),
        (USER_ID, user_id.encode("ascii")),
        (TIMESTAMP, timestamp.encode("ascii")),
        (SIGNATURE, signature.hex().encode("ascii")),
    )


def _response_body(request_id: str, response: StoredResponse) -> tuple[bytes, bytes, bytes]:
    error = _error_for(response.status)
    if _has_json_type(response.headers) and (payload := embeddable(response.body)) is not None:
        return _envelope(request_id, error, payload)
    return _envelope(request_id, error, b"null", NOT_JSON)


def _envelope(
    request_id: str, error: str | None, payload: bytes, payload_error: str | None = None
) -> tuple[bytes, bytes, bytes]:
    request = json.dumps(request_id)
    reason = f', "payload_error": {json.dumps(payload_error)}' if payload_error else ""
    before = f'{{"error": {json.dumps(error)}, "gateway_request_id": {request}, "payload": '
    after = f'{reason}, "request_id": {request}, "status": "{"ERROR" if error else "OK"}"}}'
    return before.encode("ascii"), payload, after.encode("ascii")


def _error_for(status: int) -> str | None:
    return None if 200 <= status < 300 else _status_error(status)


def _status_error(status: int) -> str:
    return f"Invalid status code: {status}"


def _has_json_type(headers: Headers) -> bool:
    """JSON MIME types as defined by the WHATWG's MIME Sniffing standard, section 4.6."""
    value = next((value for name, value in headers if name == b"content-type"), b"")
    essence = value.split(b";", 1)[0].strip().lower()
    return essence in (b"application/json", b"text/json") or essence.endswith(b"+json")
