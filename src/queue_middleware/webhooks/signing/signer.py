"""Signs webhooks with the Ed25519 keys that are valid now, and with the secrets that are shared with receivers."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable

from .keyring import KeyRing, jwks
from .keys import KeyPair, LongSignature, SharedSecret


class Signer:
    """`clock` returns Unix seconds and decides which key signs.

    `ring` may be set at any time, from any thread: `KeyReloader` does that after a rotation.
    """

    def __init__(self, ring: KeyRing, secrets: Iterable[SharedSecret] = (), *, clock: Callable[[], float] = time.time) -> None:
        self.ring = ring
        self._secrets = tuple(secrets)
        self._clock = clock
        self._cache: tuple[KeyRing, int, tuple[KeyPair, ...]] | None = None

    @property
    def active(self) -> KeyPair:
        """The key that signs now."""
        return self._signing()[-1]

    def sign(self, message: bytes) -> bytes:
        """The active key's signature, 64 raw bytes."""
        return self.active.sign(message)

    def sign_all(self, message: bytes) -> list[bytes]:
        """Signatures by the active key and, for two days after a rotation, by the earlier one.

        For receivers that are configured with one public key and do not fetch the key set: they have two days to replace it.
        """
        return [self.sign(message), *(pair.sign(message) for pair in self._signing()[-2::-1])]

    def macs(self, message: bytes) -> list[bytes]:
        """HMAC-SHA256 by each shared secret, 32 raw bytes each."""
        return [secret.sign(message) for secret in self._secrets]

    def start_signatures(self) -> list[LongSignature]:
        """The signatures of `sign_all` for a message that is not in memory as a whole."""
        return [pair.start_long() for pair in self._signing()[::-1]]

    def start_macs(self) -> list[hmac.HMAC]:
        """The HMACs of `macs` for a message that is not in memory as a whole."""
        return [secret.start() for secret in self._secrets]

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The JSON Web Key Set that is published now."""
        return jwks(self.ring.published(self._clock()))

    def _signing(self) -> tuple[KeyPair, ...]:
        """The keys that sign, the active one last. Computed once a second, for all webhooks of that second."""
        ring, second = self.ring, int(self._clock())
        cache = self._cache
        if cache is None or cache[0] is not ring or cache[1] != second:
            self._cache = cache = ring, second, ring.signing(second)
        return cache[2]
