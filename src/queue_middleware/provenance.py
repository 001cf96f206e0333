"""Whether a call of a callback URL is signed by the provider that it ought to come from, where we know his keys.

The callback id is a secret already; a signature also tells a provider from somebody who has seen the id. It is asked for by the
host that the task has called, because others may call back in the same form with keys of their own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from .errors import SettingsError, VerificationError
from .models import Headers
from .verify import WebhookVerifier
from .wire import standard

_TOLERANCE = 300.0
_SECONDS = re.compile(r"[0-9]{1,12}")
_SECRET = "whsec_"  # noqa: S105 - how one begins, and none itself


class Verifier(Protocol):
    """Knows the keys of one provider."""

    async def verify(self, headers: Headers, body: bytes) -> object:
        """Raise `VerificationError` for what he has not signed just now."""


class Provenance:
    """`sources`: host of a `targetUrl`, and the URL of a key set (as fal has) or a secret `whsec_…` (as Replicate has).

    A host may stand there several times: then one of its keys is enough. `client` fetches key sets, `clock` gives Unix seconds.
    Raises `SettingsError` for a secret that is none.
    """

    def __init__(
        self,
        sources: Iterable[tuple[str, str]],
        *,
        client: httpx.AsyncClient | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._verifiers: dict[str, list[Verifier]] = {}
        for host, source in sources:
            is_secret = source.startswith(_SECRET)
            verifier = SecretVerifier(source, clock=clock) if is_secret else WebhookVerifier(source, client=client, clock=clock)
            self._verifiers.setdefault(host, []).append(verifier)

    async def check(self, target: str, headers: Headers, body: bytes) -> None:
        """Raise `VerificationError`, as `KeysUnavailable` where nothing can be said, unless it is signed or needs not be.

        `target` is the URL that the task has called; `body` is raw.
        """
        refusal: VerificationError | None = None
        for verifier in self._verifiers.get(_host_of(target), ()) if self._verifiers else ():
            try:
                await verifier.verify(headers, body)
            except VerificationError as error:
                refusal = error
            else:
                return
        if refusal is not None:
            raise refusal


def _host_of(target: str) -> str:
    try:
        return urlsplit(target).hostname or ""
    except ValueError:
        return ""


class SecretVerifier:
    """Standard Webhooks with a shared secret (`v1`, specification 1.0.0)."""

    def __init__(self, secret: str, *, clock: Callable[[], float] = time.time) -> None:
        self._secret = _read_secret(secret)
        self._clock = clock

    async def verify(self, headers: Headers, body: bytes) -> None:
        """Raise `VerificationError` with the reason."""
        names = (standard.ID, standard.TIMESTAMP, standard.SIGNATURE)
        message_id, timestamp, signatures = (_only(headers, name) for name in names)
        if not _SECONDS.fullmatch(timestamp):
            raise VerificationError("the header webhook-timestamp is not a number of seconds")
        if abs(self._clock() - int(timestamp)) > _TOLERANCE:
            raise VerificationError(f"the webhook's time differs from ours by more than {_TOLERANCE:g} s")
        try:
            message = standard.signed_message(message_id, timestamp, body)
        except UnicodeEncodeError:
            raise VerificationError("the header webhook-id is not plain text") from None
        expected = b"v1," + base64.b64encode(hmac.new(self._secret, message, hashlib.sha256).digest())
        if not any(hmac.compare_digest(expected, word.encode("latin-1")) for word in signatures.split()):
            raise VerificationError("the signature was not made with our secret, or the webhook was changed on its way")


def _read_secret(text: str) -> bytes:
    try:
        secret = base64.b64decode(text.removeprefix(_SECRET), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not text.startswith(_SECRET) or len(secret) < 16:
        # It is not repeated: it may be nearly the secret.
        raise SettingsError("callback_keys: a secret is whsec_ and then base64, as the provider shows it")
    return secret


def _only(headers: Headers, name: bytes) -> str:
    found = [value for key, value in headers if key.lower() == name]
    if len(found) != 1 or not found[0]:
        raise VerificationError(f"the header {name.decode()} {'came twice' if len(found) > 1 else 'is missing'}")
    return found[0].decode("latin-1")
