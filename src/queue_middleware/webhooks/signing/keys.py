"""Keys that sign webhooks: an Ed25519 key (RFC 8032, RFC 8037), and a secret shared with receivers (HMAC-SHA256)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable
from typing import Self

from nacl import bindings
from nacl.signing import SigningKey

from queue_middleware.errors import SettingsError
from queue_middleware.secret_parsers import decode_webhook_secret, parse_webhook_secrets

_SEED = re.compile(r"[0-9a-fA-F]{64}")


class KeyPair:
    """One Ed25519 key. `kid` is the thumbprint of its public key (RFC 7638), so it is derived and never stored."""

    def __init__(self, seed: bytes) -> None:
        self._private = SigningKey(seed)
        self.public = bytes(self._private.verify_key)
        self._expanded = seed + self.public
        self.kid = thumbprint(self.public)

    @classmethod
    def generate(cls) -> Self:
        """A new random key."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """From 64 hex digits. Raises `SettingsError`, whose text never contains the seed."""
        if not _SEED.fullmatch(text):
            raise SettingsError("a signing key is an Ed25519 seed of 64 hex digits; make one with: openssl rand -hex 32")
        return cls(bytes.fromhex(text))

    def seed_hex(self) -> str:
        """The private key as it is stored: 64 hex digits."""
        return bytes(self._private).hex()

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 raw bytes."""
        # Not `SigningKey.sign`, which copies the message twice more and costs a quarter of the time.
        return bindings.crypto_sign(message, self._expanded)[: bindings.crypto_sign_BYTES]

    def start_long(self) -> LongSignature:
        """A signature of a message that is not in memory as a whole."""
        return LongSignature(bytes(self._private), self.public)

    def jwk(self, *, padded: bool) -> dict[str, str]:
        """The public key as a JSON Web Key (RFC 8037, section 2)."""
        x = _base64url(self.public, padded=padded)
        return {"kty": "OKP", "crv": "Ed25519", "x": x, "use": "sig", "alg": "EdDSA", "kid": self.kid}


class LongSignature:
    """Signs a message that is read twice, in chunks: `update_first` for each, `end_first`, `update_second` for each, `digest`.

    Ed25519 hashes the message twice (RFC 8032, section 5.1.6), and the second hash starts with a value that depends on the
    first. The signature has the same bytes as that of `KeyPair.sign`.
    """

    def __init__(self, seed: bytes, public: bytes) -> None:
        expanded = hashlib.sha512(seed).digest()
        scalar = bytearray(expanded[:32])
        scalar[0] &= 248
        scalar[31] = scalar[31] & 127 | 64
        self._scalar = bytes(scalar)
        self._public = public
        self._nonce = hashlib.sha512(expanded[32:])
        self._readings = hashlib.sha256(), hashlib.sha256()
        self._challenge = hashlib.sha512()

    def update_first(self, chunk: bytes) -> None:
        """The next chunk of the first reading."""
        self._nonce.update(chunk)
        self._readings[0].update(chunk)

    def end_first(self) -> None:
        """The first reading is complete."""
        self._r = bindings.crypto_core_ed25519_scalar_reduce(self._nonce.digest())
        self._point = bindings.crypto_scalarmult_ed25519_base_noclamp(self._r)
        self._challenge.update(self._point + self._public)

    def update_second(self, chunk: bytes) -> None:
        """The next chunk of the second reading."""
        self._challenge.update(chunk)
        self._readings[1].update(chunk)

    def digest(self) -> bytes:
        """The raw 64 bytes. Raises `ValueError` if the readings differ, because such a signature would disclose the key."""
        if self._readings[0].digest() != self._readings[1].digest():
            raise ValueError("the message changed while it was being signed")
        challenge = bindings.crypto_core_ed25519_scalar_reduce(self._challenge.digest())
        product = bindings.crypto_core_ed25519_scalar_mul(challenge, self._scalar)
        return self._point + bindings.crypto_core_ed25519_scalar_add(self._r, product)


class SharedSecret:
    """A secret that sender and receivers share: the symmetric form of Standard Webhooks, `v1` (specification 1.0.0).

    Its repr does not show the secret.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `whsec_` and base64. Raises `SettingsError`."""
        return cls(decode_webhook_secret(text))

    def sign(self, message: bytes) -> bytes:
        """HMAC-SHA256 of the message, 32 raw bytes."""
        return hmac.digest(self._key, message, hashlib.sha256)

    def start(self) -> hmac.HMAC:
        """An HMAC-SHA256 to which the message is added in chunks."""
        return hmac.new(self._key, digestmod=hashlib.sha256)

    def verify(self, message: bytes, macs: Iterable[bytes]) -> bool:
        """Whether one of the MACs is that of the message. The comparison takes constant time."""
        expected = self.sign(message)
        return any(hmac.compare_digest(expected, mac) for mac in macs)


def parse_shared_secrets(value: object) -> tuple[SharedSecret, ...]:
    """From a string with commas or white space, or from a list of strings. Raises `SettingsError`."""
    return tuple(SharedSecret.parse(text) for text in parse_webhook_secrets(value))


def thumbprint(public: bytes) -> str:
    """The `kid` of an Ed25519 public key, 32 raw bytes: its thumbprint by RFC 7638."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(public, padded=False)}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
    return _base64url(digest, padded=False)


def _base64url(data: bytes, *, padded: bool) -> str:
    text = base64.urlsafe_b64encode(data).decode("ascii")
    return text if padded else text.rstrip("=")
