"""Cache of a sender's public keys (JWKS): parses a fetched set, knows how old it is and when to fetch it again."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

MAX_CACHE = 86400.0

_REFETCH_INTERVAL = 30.0
_RETRY_INTERVAL = 2.0


class JWKSCache:
    """Does no I/O: the caller fetches. A set is used for `max_age` seconds, a day at most. Times are Unix seconds."""

    def __init__(self, max_age: float) -> None:
        if not 0 < max_age <= MAX_CACHE:
            raise ValueError(f"cache must be more than 0 and at most {MAX_CACHE:g} seconds, not {max_age!r}")
        self._max_age = max_age
        self._keys: tuple[VerifyKey, ...] = ()
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self.last_error = "not fetched yet"

    @property
    def public_keys(self) -> tuple[bytes, ...]:
        """The keys that were fetched last, however old they are, as 32 raw bytes each."""
        return tuple(map(bytes, self._keys))

    def is_fresh(self, now: float) -> bool:
        """Whether there are keys that are not older than `max_age`."""
        return bool(self._keys) and _is_within(self._fetched_at, now, self._max_age)

    def should_fetch(self, now: float, *, unknown_key: bool) -> bool:
        """Whether the set is to be fetched now. `unknown_key`: a signature was not made by any key of the set.

        An unknown key causes at most one fetch in 30 seconds, because any client can send such a signature and must not be
        able to make this process flood the sender with requests.
        """
        if self.is_fresh(now):
            return unknown_key and not _is_within(self._tried_at, now, _REFETCH_INTERVAL)
        return not _is_within(self._tried_at, now, _RETRY_INTERVAL)

    def update(self, content: bytes, now: float) -> None:
        """Take the keys of a fetched set. Invalid content leaves the earlier keys in use until they are too old."""
        self._tried_at = now
        try:
            self._keys = _parse_keys(content)
        except ValueError as error:
            self.last_error = str(error)
        else:
            self._fetched_at = now

    def record_failure(self, reason: str, now: float) -> None:
        """The set could not be fetched."""
        self._tried_at, self.last_error = now, reason

    def verify(self, message: bytes, signatures: Iterable[bytes]) -> bool:
        """Whether one of the signatures was made by one of the keys."""
        return any(_verifies(key, message, signature) for signature in signatures for key in self._keys)


def _is_within(since: float | None, now: float, seconds: float) -> bool:
    # A clock that was set back must not prolong anything.
    return since is not None and 0 <= now - since < seconds


def _verifies(key: VerifyKey, message: bytes, signature: bytes) -> bool:
    try:
        key.verify(message, signature)
    except BadSignatureError:
        return False
    return True


def _parse_keys(content: bytes) -> tuple[VerifyKey, ...]:
    """All Ed25519 keys of a key set, without duplicates. Raises `ValueError` with the reason."""
    try:
        entries = json.loads(content)["keys"]
        public = dict.fromkeys(key for entry in entries if (key := _parse_public_key(entry)))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("the response is not a JSON Web Key Set") from None
    if not public:
        raise ValueError("the key set has no Ed25519 key")
    return tuple(VerifyKey(key) for key in public)


def _parse_public_key(entry: object) -> bytes | None:
    """The 32 bytes of an Ed25519 key; None for a key of another type.

    fal documents `x` only, so `kty` and `crv` may be absent; base64 padding is optional.
    """
    if not isinstance(entry, dict) or (entry.get("kty", "OKP"), entry.get("crv", "Ed25519")) != ("OKP", "Ed25519"):
        return None
    x = entry.get("x")
    if not isinstance(x, str):
        return None
    unpadded = x.rstrip("=")
    try:
        key = base64.urlsafe_b64decode(unpadded + "=" * (-len(unpadded) % 4))
    except ValueError:
        return None
    return key if len(key) == 32 else None
