"""The key that makes a submission safe to repeat, after draft-ietf-httpapi-idempotency-key-header-07 (`Idempotency-Key`)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from queue_middleware.errors import BadRequest

from .struct import Struct

HEADER = "Idempotency-Key"
MAX_LENGTH = 255
"""Characters of a key."""
_FINGERPRINT_BYTES = 16
_QUOTED = re.compile(r'"(?:[!#-\[\]-~]|\\["\\])+"')
"""A string of RFC 9651 §3.3.3 without spaces."""
_BARE = re.compile(r"[!#-+\--:<-\[\]-~]+")
"""Visible ASCII without quotes and backslashes, and without `,` and `;`, which separate values and parameters of a field."""
_ESCAPED = re.compile(r'\\(["\\])')


class IdempotencyKey(Struct, frozen=True):
    """The key of one submission. Another one with the same scope and key repeats it if its fingerprint is the same, too."""

    private = frozenset({"scope", "key"})

    scope: str
    """The submitter identity; empty without authentication, where all clients share one scope."""
    key: str
    fingerprint: bytes


def read_key(values: Sequence[bytes]) -> str | None:
    """The key in the values of the header `Idempotency-Key`; None without the header. `"abc"` and `abc` are the same key.

    Raises `BadRequest` for a key that cannot be read, and for more than one.
    """
    if not values:
        return None
    if len(values) > 1:
        raise BadRequest(f"the header {HEADER} is given {len(values)} times; send one key")
    text = values[0].decode("latin-1").strip(" \t")
    key = _ESCAPED.sub(r"\1", text[1:-1]) if _QUOTED.fullmatch(text) else text if _BARE.fullmatch(text) else ""
    if not 1 <= len(key) <= MAX_LENGTH:
        raise BadRequest(
            f"the header {HEADER} is {text[:64]!r}; expected 1 to {MAX_LENGTH} visible ASCII characters, "
            'with or without double quotes, e.g. "6f9619ff-8b86-d011-b42d-00cf4fc964ff"'
        )
    return key


def fingerprint(parts: Iterable[bytes]) -> bytes:
    """A hash of these parts of a request. The length of each is hashed too, so that no two lists of parts look alike."""
    digest = hashlib.blake2b(digest_size=_FINGERPRINT_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
