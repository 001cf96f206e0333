"""Standard Webhooks: the message to sign and the three headers, in both forms (specification 1.0.0).

`v1a` is Ed25519, `v1` is HMAC-SHA256 with a shared secret. A receiver looks for one signature that it can verify.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from queue_middleware.models import Headers

ID = b"webhook-id"
TIMESTAMP = b"webhook-timestamp"
SIGNATURE = b"webhook-signature"


def signed_message(webhook_id: str, timestamp: str, body: bytes) -> bytes:
    """`id.timestamp.body`, the body raw."""
    return b".".join((webhook_id.encode(), timestamp.encode(), body))


def webhook_headers(webhook_id: str, timestamp: str, signatures: Iterable[bytes], codes: Iterable[bytes] = ()) -> Headers:
    """`webhook_id` stays over all attempts; `timestamp` in Unix seconds; raw Ed25519 signatures, and raw codes of HMAC."""
    spelled = [b"v1a," + base64.b64encode(signature) for signature in signatures]
    spelled += [b"v1," + base64.b64encode(code) for code in codes]
    return ((ID, webhook_id.encode("ascii")), (TIMESTAMP, timestamp.encode("ascii")), (SIGNATURE, b" ".join(spelled)))


def parse_signatures(text: str) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Raw Ed25519 signatures and raw codes of HMAC. What is of another version, or no base64, is passed over."""
    found: dict[str, list[bytes]] = {"v1a": [], "v1": []}
    for word in text.split():
        version, _, spelled = word.partition(",")
        if version in found:
            try:
                found[version].append(base64.b64decode(spelled, validate=True))
            except (binascii.Error, ValueError):
                continue
    signatures = tuple(signature for signature in found["v1a"] if len(signature) == 64)
    return signatures, tuple(found["v1"])
