"""Ed25519 keys: read or made, signing with the first, publishing all of them as a JSON Web Key Set (RFC 7517, RFC 8037)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from nacl.signing import SigningKey

from .errors import SettingsError

_SEED = re.compile(r"[0-9a-fA-F]{64}")
_KEPT_MODE = 0o600
_LARGEST_FILE = 4096


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


class Signer:
    """What signs our webhooks: the first key signs, all of them are published."""

    def __init__(self, keys: Sequence[KeyPair]) -> None:
        if not keys:
            raise SettingsError("there is no signing key")
        self.keys = tuple(keys)

    @property
    def active(self) -> KeyPair:
        """The key that signs."""
        return self.keys[0]

    def sign(self, message: bytes) -> bytes:
        """The raw 64 bytes of the active key's signature."""
        return self.active.sign(message)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """`{"keys": […]}`, each key twice: `x` without padding first, then with.

        RFC 7517 wants none; fal's documented Python receiver fails without it. Receivers try every key, so both are served
        (fal queue contract, section 9).
        """
        return {"keys": [key.jwk(padded=padded) for key in self.keys for padded in (False, True)]}


def load_signer(signing_key: str | None, key_file: Path) -> Signer:
    """The keys of the option, else those of `key_file`, which is made when it is not there.

    Several seeds are separated by commas or white space. Blocking: a few small file operations. Raises `SettingsError` for a
    malformed key and for a file that cannot be made, cannot be read, or is open to others.
    """
    if signing_key is not None:
        return _parse(signing_key, "signing_key")
    try:
        if not key_file.exists():
            _create(key_file)
        return _parse(_read_private(key_file), str(key_file))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SettingsError(f"the signing key {key_file} cannot be used: {reason}; mend it, or set signing_key") from error


def _parse(text: str, source: str) -> Signer:
    try:
        return Signer([KeyPair.from_hex(word) for word in text.replace(",", " ").split()])
    except SettingsError as error:
        raise SettingsError(f"{source}: {error.detail}") from None


def _create(path: Path) -> None:
    """Put a whole new key at `path`, or leave the one that another process put there first."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        _write_private(draft, KeyPair.generate().seed_hex() + "\n")
        # A link appears whole or not at all and never replaces, so processes that start together agree on one key.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _KEPT_MODE)
    with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib cannot open a descriptor
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut: receivers cache the public half for a day."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_private(path: Path) -> str:
    with path.open("rb") as file:
        # The opened file is looked at, not the name, which could point elsewhere a moment later.
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"the signing key {path} is not a file")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise SettingsError(f"the signing key {path} can be read or written by others; run: chmod 600 {path}")
        return file.read(_LARGEST_FILE).decode("ascii", "replace")


def _thumbprint(public: bytes) -> str:
    members = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(public, padded=False)}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
    return _base64url(digest, padded=False)


def _base64url(data: bytes, *, padded: bool) -> str:
    text = base64.urlsafe_b64encode(data).decode("ascii")
    return text if padded else text.rstrip("=")
