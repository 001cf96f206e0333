"""What signs our webhooks: a ring of Ed25519 keys, and the secrets that are shared with receivers, if there are any."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable

from .keyring import KeyRing, jwks
from .keys import KeyPair, LongSignature, SharedSecret


class Signer:
    """Signs with what is right at this moment. `clock` gives Unix seconds.

    `ring` can be set at any time, from any thread: that is how a rotation is noticed.
    """

    def __init__(self, ring: KeyRing, secrets: Iterable[SharedSecret] = (), *, clock: Callable[[], float] = time.time) -> None:
        self.ring = ring
        self._secrets = tuple(secrets)
        self._clock = clock
        self._judged: tuple[KeyRing, int, tuple[KeyPair, ...]] | None = None

    @property
    def active(self) -> KeyPair:
        """The key that signs now."""
        return self._signing()[-1]

    def sign(self, message: bytes) -> bytes:
        """The raw 64 bytes of the active key's signature."""
        return self.active.sign(message)

    def sign_all(self, message: bytes) -> list[bytes]:
        """The same by the active key and, for two days after a rotation, by the one before it.

        For receivers that were told one key and do not read the key set: they change theirs within these days.
        """
        return [self.sign(message), *(pair.sign(message) for pair in self._signing()[-2::-1])]

    def macs(self, message: bytes) -> list[bytes]:
        """HMAC-SHA256 by each shared secret, 32 raw bytes."""
        return [secret.sign(message) for secret in self._secrets]

    def start_signatures(self) -> list[LongSignature]:
        """`sign_each` for a message that is not in memory as a whole."""
        return [pair.start_long() for pair in self._signing()[::-1]]

    def start_macs(self) -> list[hmac.HMAC]:
        """`codes` for such a message."""
        return [secret.start() for secret in self._secrets]

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The JSON Web Key Set of what is published now."""
        return jwks(self.ring.published(self._clock()))

    def _signing(self) -> tuple[KeyPair, ...]:
        """The keys that sign, the active one last. Judged once a second: a thousand webhooks of it have the same answer."""
        ring, second = self.ring, int(self._clock())
        judged = self._judged
        if judged is None or judged[0] is not ring or judged[1] != second:
            self._judged = judged = ring, second, ring.signing(second)
        return judged[2]
