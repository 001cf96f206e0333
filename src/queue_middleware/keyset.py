"""The public keys of a sender, as far as they are known: what is in them, how old they are, whether to ask again."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

LONGEST_CACHE = 86400.0

_REFETCH_PAUSE = 30.0
_FAILURE_PAUSE = 2.0


class KeySet:
    """Fetches nothing itself. `cache` is how many seconds a set is believed, a day at most; times are Unix seconds."""

    def __init__(self, cache: float) -> None:
        if not 0 < cache <= LONGEST_CACHE:
            raise ValueError(f"cache must be between 0 and {LONGEST_CACHE:g} seconds")
        self._cache = cache
        self._keys: tuple[VerifyKey, ...] = ()
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self.trouble = "it was not fetched yet"

    def is_fresh(self, now: float) -> bool:
        """Whether there are keys to judge by."""
        return bool(self._keys) and _within(self._fetched_at, now, self._cache)

    def is_wanted(self, now: float, *, unknown: bool) -> bool:
        """Whether the set is to be fetched now.

        A signature by an unknown key is a reason twice a minute, not more often: anybody can send one, and must not make us a
        hammer.
        """
        if self.is_fresh(now):
            return unknown and not _within(self._tried_at, now, _REFETCH_PAUSE)
        return not _within(self._tried_at, now, _FAILURE_PAUSE)

    def learn(self, content: bytes, now: float) -> None:
        """Take what was fetched; something that is no key set leaves the old keys, until they are too old."""
        self._tried_at = now
        try:
            self._keys = _read_keys(content)
        except ValueError as error:
            self.trouble = str(error)
        else:
            self._fetched_at = now

    def miss(self, trouble: str, now: float) -> None:
        """It could not be fetched."""
        self._tried_at, self.trouble = now, trouble

    def has_signed(self, message: bytes, signatures: Iterable[bytes]) -> bool:
        """Whether one of the signatures is by one of the keys."""
        return any(_verifies(key, message, signature) for signature in signatures for key in self._keys)


def _within(since: float | None, now: float, seconds: float) -> bool:
    # A clock that was set back must not make anything last longer.
    return since is not None and 0 <= now - since < seconds


def _verifies(key: VerifyKey, message: bytes, signature: bytes) -> bool:
    try:
        key.verify(message, signature)
    except BadSignatureError:
        return False
    return True


def _read_keys(content: bytes) -> tuple[VerifyKey, ...]:
    """All Ed25519 keys of a key set, each once. Raises `ValueError` with the reason."""
    try:
        entries = json.loads(content)["keys"]
        public = dict.fromkeys(key for entry in entries if (key := _public_key(entry)))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("it is not a JSON Web Key Set") from None
    if not public:
        raise ValueError("it has no Ed25519 key")
    return tuple(VerifyKey(key) for key in public)


def _public_key(entry: object) -> bytes | None:
    """The 32 bytes of an entry, or None for one of another kind. Only `x` is documented by fal; padding may be there or not."""
    if not isinstance(entry, dict) or (entry.get("kty", "OKP"), entry.get("crv", "Ed25519")) != ("OKP", "Ed25519"):
        return None
    x = entry.get("x")
    if not isinstance(x, str):
        return None
    bare = x.rstrip("=")
    try:
        key = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except ValueError:
        return None
    return key if len(key) == 32 else None
