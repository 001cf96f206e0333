"""The public id of a request: a UUIDv7 (RFC 9562 §5.7) whose 74 random bits make it a capability.

The key in the database is an integer that grows with time, `milliseconds << 15 | sequence`. Both begin with the same 48-bit
millisecond, so a public id leads to the few keys of its millisecond and needs no index.
"""

from __future__ import annotations

import re

from queue_middleware.errors import BadRequest

SEQUENCE_BITS = 15
RANDOM_BYTES = 10
"""Bytes of an id after its time."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def format_request_id(key: int, random_part: bytes | bytearray) -> str:
    """The public id of the job with this key. `random_part` is what `make_random_parts` returned when the job was created."""
    time, rest = f"{key >> SEQUENCE_BITS:012x}", random_part.hex()
    return f"{time[:8]}-{time[8:]}-{rest[:4]}-{rest[4:8]}-{rest[8:]}"


_VERSION = bytes(0x70 | byte & 0x0F for byte in range(256))
_VARIANT = bytes(0x80 | byte & 0x3F for byte in range(256))


def make_random_parts(random: bytes) -> bytearray:
    """The parts of ids after the time: `RANDOM_BYTES` for each id, with version and variant set; 74 bits stay random."""
    parts = bytearray(random)
    parts[0::RANDOM_BYTES] = parts[0::RANDOM_BYTES].translate(_VERSION)
    parts[2::RANDOM_BYTES] = parts[2::RANDOM_BYTES].translate(_VARIANT)
    return parts


def is_request_id(text: str) -> bool:
    """Whether the text is a UUID of any version."""
    return _UUID.fullmatch(text) is not None


def request_time(request_id: str) -> int:
    """When the request with this well-formed id was submitted, in milliseconds since 1970."""
    return int(request_id.replace("-", "")[:12], 16)


def parse_request_id(text: str) -> tuple[int, bytes]:
    """The first key of the id's millisecond, and its random part. Raises `BadRequest` if the text is not a UUID."""
    if not is_request_id(text):
        raise BadRequest(f"request id {text[:64]!r} is not a UUID")
    digits = text.replace("-", "")
    return int(digits[:12], 16) << SEQUENCE_BITS, bytes.fromhex(digits[12:])
