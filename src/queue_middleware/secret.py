"""A secret that sender and receivers share: the symmetric form of Standard Webhooks, `v1` (specification 1.0.0)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Self

from .errors import SettingsError

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes, by the specification."""


class Secret:
    """One of them. Its texts never repeat it."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `whsec_` and base64. Raises `SettingsError`."""
        try:
            key = base64.b64decode(text.removeprefix(PREFIX), validate=True) if text.startswith(PREFIX) else b""
        except (binascii.Error, ValueError):
            key = b""
        if not SHORTEST <= len(key) <= LONGEST:
            raise SettingsError(
                f"a webhook secret is {PREFIX} and the base64 of {SHORTEST} to {LONGEST} bytes; "
                f"make one with: echo {PREFIX}$(openssl rand -base64 32)"
            )
        return cls(key)

    def code(self, message: bytes) -> bytes:
        """HMAC-SHA256, the raw 32 bytes."""
        return hmac.digest(self._key, message, hashlib.sha256)

    def begin(self) -> hmac.HMAC:
        """The same for a message that follows piece by piece."""
        return hmac.new(self._key, digestmod=hashlib.sha256)

    def accepts(self, message: bytes, codes: Iterable[bytes]) -> bool:
        """Whether one of the codes is that of the message. How long a wrong one takes tells nothing about the right one."""
        right = self.code(message)
        return any(hmac.compare_digest(right, code) for code in codes)


def parse_secrets(value: object) -> tuple[Secret, ...]:
    """Of a text with commas or white space, or of a list of texts. Raises `SettingsError`."""
    return tuple(Secret.parse(word) for word in secret_words(value))


def secret_words(value: object) -> tuple[str, ...]:
    """The texts of several secrets, each of them checked. Raises `SettingsError`."""
    if isinstance(value, str):
        words = tuple(re.findall(r"[^\s,]+", value))
    elif isinstance(value, Iterable):
        words = tuple(str(word) for word in value)
    else:
        raise SettingsError(f"a {type(value).__name__} is no list of webhook secrets")
    for word in words:
        Secret.parse(word)
    return words
