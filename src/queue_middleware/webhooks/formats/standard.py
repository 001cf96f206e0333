"""The format of Standard Webhooks 1.0.0: the signed message and the three headers.

Signatures of version `v1a` are Ed25519, those of `v1` HMAC-SHA256 with a shared secret; a receiver needs to verify one of them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from queue_middleware.jobs.models import Headers

ID = b"webhook-id"
TIMESTAMP = b"webhook-timestamp"
SIGNATURE = b"webhook-signature"


def signed_message(webhook_id: str, timestamp: str, body: bytes) -> bytes:
    """`id.timestamp.body`, with the raw body."""
    return b".".join((webhook_id.encode(), timestamp.encode(), body))


def webhook_headers(webhook_id: str, timestamp: str, signatures: Iterable[bytes], macs: Iterable[bytes] = ()) -> Headers:
    """The headers of one attempt, from raw Ed25519 signatures and raw HMACs.

    `webhook_id` is the same in all attempts, `timestamp` is in Unix seconds.
    """
    encoded = [b"v1a," + base64.b64encode(signature) for signature in signatures]
    encoded += [b"v1," + base64.b64encode(mac) for mac in macs]
    return ((ID, webhook_id.encode("ascii")), (TIMESTAMP, timestamp.encode("ascii")), (SIGNATURE, b" ".join(encoded)))


def parse_signatures(text: str) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Raw Ed25519 signatures and raw HMACs. Other versions and invalid base64 are skipped."""
    found: dict[str, list[bytes]] = {"v1a": [], "v1": []}
    for item in text.split():
        version, _, encoded = item.partition(",")
        if version in found:
            try:
                found[version].append(base64.b64decode(encoded, validate=True))
            except (binascii.Error, ValueError):
                continue
    signatures = tuple(signature for signature in found["v1a"] if len(signature) == 64)
    return signatures, tuple(found["v1"])
