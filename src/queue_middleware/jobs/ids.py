"""The public id of a request: a UUIDv7 (RFC 9562 §5.7) whose 74 random bits make it a capability.

The key in the database is an integer that grows with time, `milliseconds << 15 | sequence`. Both begin with the same 48-bit
millisecond, so a public id leads to the few keys of its millisecond and needs no index.
"""

from __future__ import annotations

import re

from queue_middleware.errors import BadRequest

SEQUENCE_BITS = 15

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def format_request_id(key: int, random_part: bytes) -> str:
    """The public id of the job with this key. `random_part` is what `make_random_part` returned when the job was created."""
    text = f"{key >> SEQUENCE_BITS:012x}{random_part.hex()}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def make_random_part(random: bytes) -> bytes:
    """The part of an id after the time: ten random bytes with version and variant set, so that 74 bits stay random."""
    return bytes((0x70 | random[0] & 0x0F, random[1], 0x80 | random[2] & 0x3F)) + random[3:10]


def is_request_id(text: str) -> bool:
    """Whether the text is a UUID of any version."""
    return _UUID.fullmatch(text) is not None


def parse_request_id(text: str) -> tuple[int, bytes]:
    """The first key of the id's millisecond, and its random part. Raises `BadRequest` if the text is not a UUID."""
    if not is_request_id(text):
        raise BadRequest(f"request id {text[:64]!r} is not a UUID")
    digits = text.replace("-", "")
    return int(digits[:12], 16) << SEQUENCE_BITS, bytes.fromhex(digits[12:])
