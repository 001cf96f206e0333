"""What the headers of a webhook are computed from where its body is too long for memory: its pieces are passed twice."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable

from .background import aside
from .models import Headers
from .signing import Signer
from .wire import asyncqueue, standard


class LongSigning:
    """Of one webhook, for one moment: `timestamp` in Unix seconds. `secrets` are those of `X-AsyncQueue-Signature`."""

    def __init__(self, signer: Signer, webhook_id: str, timestamp: str, secrets: Iterable[str]) -> None:
        self._before = standard.signed_message(webhook_id, timestamp, b"")
        self._timestamp = timestamp
        self._body = hashlib.sha256()
        self._signatures = signer.sign_each_long()
        self._shared = signer.codes_long()
        self._own = asyncqueue.signature_codes(secrets, timestamp)

    async def read(self, pieces: Callable[[], AsyncIterator[bytes]]) -> None:
        """Let the body pass, twice. Megabytes of it would hold up everything else in this event loop."""
        for signature in self._signatures:
            signature.first(self._before)
        for code in self._shared:
            code.update(self._before)
        async for piece in pieces():
            await aside(self._first, piece)
        for signature in self._signatures:
            signature.turn()
            signature.second(self._before)
        async for piece in pieces():
            await aside(self._second, piece)

    def _first(self, piece: bytes) -> None:
        self._body.update(piece)
        for code in (*self._shared, *self._own):
            code.update(piece)
        for signature in self._signatures:
            signature.first(piece)

    def _second(self, piece: bytes) -> None:
        for signature in self._signatures:
            signature.second(piece)

    @property
    def digest(self) -> str:
        """SHA-256 of the body, in hex."""
        return self._body.hexdigest()

    def signatures(self) -> list[bytes]:
        """See `Signer.sign_each`. Raises `ValueError` where the body was not the same twice."""
        return [signature.done() for signature in self._signatures]

    def codes(self) -> list[bytes]:
        """See `Signer.codes`."""
        return [code.digest() for code in self._shared]

    def own(self) -> Headers:
        """See `asyncqueue.signature_headers`."""
        return asyncqueue.spelled_codes(self._own, self._timestamp)
