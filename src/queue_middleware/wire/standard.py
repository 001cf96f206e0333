"""Standard Webhooks: the message to sign and the three headers, in the asymmetric form `v1a` (specification 1.0.0)."""

from __future__ import annotations

import base64
from collections.abc import Iterable

from queue_middleware.models import Headers

ID = b"webhook-id"
TIMESTAMP = b"webhook-timestamp"
SIGNATURE = b"webhook-signature"


def signed_message(webhook_id: str, timestamp: str, body: bytes) -> bytes:
    """`id.timestamp.body`, the body raw."""
    return b".".join((webhook_id.encode("ascii"), timestamp.encode("ascii"), body))


def webhook_headers(webhook_id: str, timestamp: str, signatures: Iterable[bytes]) -> Headers:
    """`webhook_id` stays over all attempts; `timestamp` in Unix seconds; raw Ed25519 signatures, one for each active key."""
    spelled = b" ".join(b"v1a," + base64.b64encode(signature) for signature in signatures)
    return ((ID, webhook_id.encode("ascii")), (TIMESTAMP, timestamp.encode("ascii")), (SIGNATURE, spelled))
