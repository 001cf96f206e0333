"""Computes the signatures of a webhook whose body is not kept in memory while it is sent. Its chunks are read twice."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable

from queue_middleware.background import run_in_thread

from .body import BodySignature
from .formats import standard
from .signing.signer import Signer


class LongMessageSigner:
    """For one webhook, signed at `timestamp` in Unix seconds. `own` is the signature of the body's format, if it has one."""

    def __init__(self, signer: Signer, webhook_id: str, timestamp: str, own: BodySignature | None) -> None:
        self._prefix = standard.signed_message(webhook_id, timestamp, b"")
        self._body_hash = hashlib.sha256()
        self._signatures = signer.start_signatures()
        self._macs = signer.start_macs()
        self._own = own

    async def read(self, read_body: Callable[[], AsyncIterator[bytes]]) -> None:
        """Read the body twice. The hashing runs in a thread: that of several megabytes would block the event loop."""
        for signature in self._signatures:
            signature.update_first(self._prefix)
        for mac in self._macs:
            mac.update(self._prefix)
        async for chunk in read_body():
            await run_in_thread(self._update_first, chunk)
        for signature in self._signatures:
            signature.end_first()
            signature.update_second(self._prefix)
        async for chunk in read_body():
            await run_in_thread(self._update_second, chunk)

    def _update_first(self, chunk: bytes) -> None:
        self._body_hash.update(chunk)
        for mac in self._macs:
            mac.update(chunk)
        if self._own is not None:
            self._own.update(chunk)
        for signature in self._signatures:
            signature.update_first(chunk)

    def _update_second(self, chunk: bytes) -> None:
        for signature in self._signatures:
            signature.update_second(chunk)

    @property
    def digest(self) -> str:
        """SHA-256 of the body, in hex."""
        return self._body_hash.hexdigest()

    def signatures(self) -> list[bytes]:
        """Ed25519 signatures, as by `Signer.sign_all`. Raises `ValueError` if the second reading differed from the first."""
        return [signature.digest() for signature in self._signatures]

    def macs(self) -> list[bytes]:
        """HMAC-SHA256 by each shared secret, as by `Signer.macs`."""
        return [mac.digest() for mac in self._macs]
