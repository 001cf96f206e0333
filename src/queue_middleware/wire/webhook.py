"""fal's webhook: the bytes that are sent, the message that is signed, the headers beside it (fal queue contract, section 9)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from queue_middleware.json_text import embeddable
from queue_middleware.lifecycle import CANCELLED
from queue_middleware.models import Headers, JobState, Result, StoredResponse, WebhookKind

from .failures import STATUS, failure_body

NOT_JSON = (
    "Response payload is not JSON serializable. "
    "Either return a JSON serializable object or use the queue endpoint to retrieve the response."
)
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
    return b"".join(webhook_frame(result))


def webhook_frame(result: Result) -> tuple[bytes, bytes, bytes]:
    """The same in three pieces, of which the second is the payload: the application's own bytes where it is carried."""
    if result.response is not None:
        return _answered(result.job.request_id, result.response)
    if result.job.state is JobState.CANCELLED:
        return _envelope(result.job.request_id, CANCELLED.detail, failure_body(result.job.failure or CANCELLED))
    if result.job.failure is None:
        raise ValueError(f"request {result.job.request_id} has neither an answer nor a failure")
    failure = result.job.failure
    return _envelope(result.job.request_id, _invalid(STATUS[failure.error_type]), failure_body(failure))


def user_id(identity: str | None) -> str:
    """Whom a request belongs to, percent-encoded where it is more than a header carries; never empty."""
    return quote(identity, safe=_PLAIN) if identity else ANONYMOUS


def named_body(result: Result, most: int, where: str) -> bytes:
    """For an answer that is too large to be carried: the same without it, and with where it is to be had."""
    response = result.response
    if response is None:
        raise ValueError(f"request {result.job.request_id} has no answer")
    excuse = f"Response payload has {response.size} bytes, more than {most}. Fetch it from {where}"
    return b"".join(_envelope(result.job.request_id, _error_of(response.status), b"null", excuse))


def news_body(kind: WebhookKind, request_id: str, webhook_id: str, found: Mapping[str, Any]) -> bytes:
    """What is told before the end, for those who asked: fal's envelope with the status of then, `type` and `timestamp`.

    `found` has `at` in milliseconds since 1970, and of a progress `fraction` and `stage`. There is nothing of fal's to follow
    here; type and timestamp are those that Standard Webhooks recommends. `webhook_id` tells one of several from the others,
    and from the end, where only fal's headers are verified, which have the id of the request.
    """
    at = datetime.fromtimestamp(found["at"] / 1000, UTC)
    told: dict[str, Any] = {
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
        told["progress"] = {"fraction": found["fraction"], "stage": found["stage"]}
    return json.dumps(told, sort_keys=True).encode("ascii")


@lru_cache(maxsize=512)
def signed_message(request_id: str, user_id: str, timestamp: str, body: bytes) -> bytes:
    """What fal signs with Ed25519: four lines, the last the SHA-256 of the raw body in hex, no newline at the end."""
    return digest_message(request_id, user_id, timestamp, hashlib.sha256(body).hexdigest())


def digest_message(request_id: str, user_id: str, timestamp: str, digest: str) -> bytes:
    """The same from the SHA-256 of a body that is not there in one piece."""
    return "\n".join((request_id, user_id, timestamp, digest)).encode()


def webhook_headers(request_id: str, user_id: str, timestamp: str, signature: bytes) -> Headers:
    """The four headers of fal: `user_id` that is never empty, `timestamp` in Unix seconds, `signature` of 64 raw bytes."""
    return (
        (REQUEST_ID, request_id.encode("ascii")),
        (USER_ID, user_id.encode("ascii")),
        (TIMESTAMP, timestamp.encode("ascii")),
        (SIGNATURE, signature.hex().encode("ascii")),
    )


def _answered(request_id: str, response: StoredResponse) -> tuple[bytes, bytes, bytes]:
    error = _error_of(response.status)
    if _has_json_type(response.headers) and (payload := embeddable(response.body)) is not None:
        return _envelope(request_id, error, payload)
    return _envelope(request_id, error, b"null", NOT_JSON)


def _envelope(
    request_id: str, error: str | None, payload: bytes, payload_error: str | None = None
) -> tuple[bytes, bytes, bytes]:
    request = json.dumps(request_id)
    excuse = f', "payload_error": {json.dumps(payload_error)}' if payload_error else ""
    before = f'{{"error": {json.dumps(error)}, "gateway_request_id": {request}, "payload": '
    after = f'{excuse}, "request_id": {request}, "status": "{"ERROR" if error else "OK"}"}}'
    return before.encode("ascii"), payload, after.encode("ascii")


def _error_of(status: int) -> str | None:
    return None if 200 <= status < 300 else _invalid(status)


def _invalid(status: int) -> str:
    return f"Invalid status code: {status}"


def _has_json_type(headers: Headers) -> bool:
    """The JSON MIME types of the WHATWG's MIME Sniffing standard, §4.6."""
    value = next((value for name, value in headers if name == b"content-type"), b"")
    essence = value.split(b";", 1)[0].strip().lower()
    return essence in (b"application/json", b"text/json") or essence.endswith(b"+json")
