"""One Ed25519 key: what it signs (RFC 8032), and its public half as it is published (RFC 7517, RFC 8037)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from typing import Self

from nacl.signing import SigningKey

from .errors import SettingsError

_SEED = re.compile(r"[0-9a-fA-F]{64}")


class KeyPair:
    """One Ed25519 key. `kid` is the thumbprint of its public half (RFC 7638), so it needs to be remembered nowhere."""

    def __init__(self, seed: bytes) -> None:
        self._private = SigningKey(seed)
        self.public = bytes(self._private.verify_key)
        self.kid = _thumbprint(self.public)

    @classmethod
    def generate(cls) -> Self:
        """A new key from the system's random source."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """From 64 hex digits. Raises `SettingsError`, which never repeats the text: it may be nearly the secret."""
        if not _SEED.fullmatch(text):
            raise SettingsError("a signing key is an Ed25519 seed of 64 hex digits; make one with: openssl rand -hex 32")
        return cls(bytes.fromhex(text))

    def seed_hex(self) -> str:
        """The private half as it is kept: 64 hex digits."""
        return bytes(self._private).hex()

    def sign(self, message: bytes) -> bytes:
        """The raw 64 bytes."""
        return self._private.sign(message).signature

    def jwk(self, *, padded: bool) -> dict[str, str]:
        """The public half as a JSON Web Key (RFC 8037 §2)."""
        x = _base64url(self.public, padded=padded)
        return {"kty": "OKP", "crv": "Ed25519", "x": x, "use": "sig", "alg": "EdDSA", "kid": self.kid}


def _thumbprint(public: bytes) -> str:
    members = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(public, padded=False)}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
    return _base64url(digest, padded=False)


def _base64url(data: bytes, *, padded: bool) -> str:
    text = base64.urlsafe_b64encode(data).decode("ascii")
    return text if padded else text.rstrip("=")
