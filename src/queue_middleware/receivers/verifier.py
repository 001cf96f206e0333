"""Verifies the signature and the time of a webhook, in the application that receives it.

    verifier = WebhookVerifier("https://service.example.com/fal/queue/.well-known/jwks.json")
    webhook = await verifier.verify(request.headers, await request.body())

Accepts this package's webhooks, fal's own (`FAL_JWKS_URL`; docs/reference/protocols/fal.md, section 9), and those of any sender
that follows Standard Webhooks. A webhook may arrive more than once: store `webhook_id` to detect repeats.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import anyio
import httpx
import msgspec

from queue_middleware.errors import KeysUnavailable, VerificationError
from queue_middleware.webhooks.formats.user_agent import USER_AGENT
from queue_middleware.webhooks.signing.keys import parse_shared_secrets

from .jwks import MAX_CACHE, JWKSCache
from .signatures import HeaderPairs, Parser, SignedMessage, extract_headers, parse_fal, parse_messages, parse_standard

FAL_JWKS_URL = "https://rest.fal.ai/.well-known/jwks.json"
"""Where fal publishes the keys of its own webhooks."""
TOLERANCE = 300.0
"""Seconds by which a webhook's timestamp may differ from this machine's clock; fal and Standard Webhooks use the same."""

_HEADERS = {"user-agent": USER_AGENT}
_FETCH_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class VerifiedWebhook:
    """A webhook with a valid signature and a recent timestamp."""

    request_id: str
    """The request that the webhook reports on. If neither fal's headers nor the body have one, the webhook's id."""
    user_id: str
    """The submitter of the request, from fal's headers; empty without them."""
    timestamp: int
    """When it was signed, in Unix seconds."""
    body: bytes
    webhook_id: str
    """The same in all attempts to deliver this webhook, and different from that of any other: store it to detect repeats."""

    def json(self) -> Any:
        """The body as fal's envelope: `request_id`, `gateway_request_id`, `status`, `payload`, `error`. Raises `ValueError`."""
        return json.loads(self.body)


class WebhookVerifier:
    """Checks signatures against the key set at `jwks_url`, against `secrets` that are shared with the sender, or against both.

    A webhook has fal's headers, those of Standard Webhooks, or both. One valid signature is enough, and only values that a
    valid signature covers are returned. Without `jwks_url` and `secrets`, fal's own key set is used; then set `user_id` to your
    own, because any user of fal can make fal send a signed webhook to you. With `user_id`, fal's headers are required.

    The key set is fetched when it is first needed, again after `cache` seconds, and when a signature has an unknown key, but
    then at most every 30 seconds. `client` and `sync_client` fetch it; without them a client is created for each fetch. Use
    https for `jwks_url` unless it is on this machine: a server that can respond in its place can sign webhooks. `secrets` are
    `whsec_…` strings, several in a list or with commas. `tolerance` is how many seconds a webhook's timestamp may differ from
    `clock`, which returns Unix seconds. One verifier can be used by many tasks of one event loop and by many threads.
    """

    def __init__(
        self,
        jwks_url: str | None = None,
        *,
        secrets: str | Sequence[str] = (),
        user_id: str | None = None,
        tolerance: float = TOLERANCE,
        cache: float = MAX_CACHE,
        client: httpx.AsyncClient | None = None,
        sync_client: httpx.Client | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secrets = parse_shared_secrets(secrets)
        self._url = jwks_url or ("" if self._secrets else FAL_JWKS_URL)
        if user_id is not None and not self._url:
            raise ValueError("user_id is in fal's headers only, which are verified with a key set; set jwks_url too")
        self._user_id = user_id
        self._tolerance = tolerance
        self._client = client
        self._sync_client = sync_client
        self._clock = clock
        self._jwks = JWKSCache(cache)
        self._parsers = _parsers(has_key_set=bool(self._url), has_user_id=user_id is not None)
        self._lock = anyio.Lock()
        self._sync_lock = threading.Lock()

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The Ed25519 public keys of the key set that was fetched last, 32 raw bytes each; empty before the first fetch."""
        return self._jwks.public_keys

    async def verify(self, headers: Mapping[str, str] | HeaderPairs, body: bytes) -> VerifiedWebhook:
        """Return the webhook, if it is valid.

        `body` is the raw body, not parsed and serialized again. The case of header names does not matter.
        Raises `VerificationError` with the reason, and `KeysUnavailable`, a subclass, if the key set cannot be fetched.
        """
        messages, body = self._parse(headers, body)
        valid = self._verified(messages)
        if self._should_fetch(valid):
            async with self._lock:
                if self._should_fetch(self._verified(messages)):
                    await self._fetch()
            valid = self._verified(messages)
        return self._accept(valid, body)

    def verify_sync(self, headers: Mapping[str, str] | HeaderPairs, body: bytes) -> VerifiedWebhook:
        """`verify` without an event loop, e.g. in Flask: `verifier.verify_sync(request.headers, request.get_data())`."""
        messages, body = self._parse(headers, body)
        valid = self._verified(messages)
        if self._should_fetch(valid):
            with self._sync_lock:
                if self._should_fetch(self._verified(messages)):
                    self._fetch_sync()
            valid = self._verified(messages)
        return self._accept(valid, body)

    # --- deciding

    def _parse(self, headers: Mapping[str, str] | HeaderPairs, body: bytes) -> tuple[list[SignedMessage], bytes]:
        if not isinstance(body, bytes | bytearray | memoryview):
            raise TypeError(f"verify needs the raw body as bytes, not {type(body).__name__}: the signature covers every byte")
        body = bytes(body)
        return parse_messages(self._parsers, extract_headers(headers), body, self._clock(), self._tolerance), body

    def _verified(self, messages: Sequence[SignedMessage]) -> list[SignedMessage]:
        """The messages with a signature by a known key or secret."""
        fresh = self._jwks.is_fresh(self._clock())
        return [
            message
            for message in messages
            if (fresh and self._jwks.verify(message.message, message.signatures)) or self._has_valid_mac(message)
        ]

    def _has_valid_mac(self, message: SignedMessage) -> bool:
        return any(secret.verify(message.message, message.macs) for secret in self._secrets)

    def _should_fetch(self, valid: Sequence[SignedMessage]) -> bool:
        return bool(self._url) and self._jwks.should_fetch(self._clock(), unknown_key=not valid)

    def _accept(self, valid: Sequence[SignedMessage], body: bytes) -> VerifiedWebhook:
        if not valid:
            raise self._error()
        request_id, user_id, webhook_id = (
            next((value for message in valid if (value := getattr(message, name)) is not None), None)
            for name in ("request_id", "user_id", "webhook_id")
        )
        if self._user_id is not None and user_id != self._user_id:
            raise VerificationError("the webhook is another user's: its user id is not the one that is expected")
        ids = _ids_in(body)
        request_id = request_id or ids.request_id or webhook_id or ""
        if webhook_id is None and ids.webhook_id is not None and ids.webhook_id.startswith(f"{request_id}_"):
            webhook_id = ids.webhook_id  # fal's headers have the same id in all webhooks of a request
        return VerifiedWebhook(request_id, user_id or "", valid[0].timestamp, body, webhook_id or request_id)

    def _error(self) -> VerificationError:
        if self._url and not self._jwks.is_fresh(self._clock()):
            return KeysUnavailable(f"cannot fetch the key set from {_shown(self._url)}: {self._jwks.last_error}")
        known = [f"the keys of {_shown(self._url)}"] * bool(self._url) + ["the secrets"] * bool(self._secrets)
        return VerificationError(f"the signature is by none of {' or '.join(known)}, or the webhook was changed in transit")

    # --- fetching

    async def _fetch(self) -> None:
        try:
            if self._client is not None:
                response = await self._client.get(self._url, timeout=_FETCH_TIMEOUT, headers=_HEADERS)
            else:
                async with httpx.AsyncClient(timeout=_FETCH_TIMEOUT) as client:
                    response = await client.get(self._url, headers=_HEADERS)
        except (httpx.HTTPError, OSError) as error:
            self._jwks.record_failure(str(error) or type(error).__name__, self._clock())
        else:
            self._update(response)

    def _fetch_sync(self) -> None:
        try:
            if self._sync_client is not None:
                response = self._sync_client.get(self._url, timeout=_FETCH_TIMEOUT, headers=_HEADERS)
            else:
                response = httpx.get(self._url, timeout=_FETCH_TIMEOUT, headers=_HEADERS)
        except (httpx.HTTPError, OSError) as error:
            self._jwks.record_failure(str(error) or type(error).__name__, self._clock())
        else:
            self._update(response)

    def _update(self, response: httpx.Response) -> None:
        if response.status_code != 200:
            self._jwks.record_failure(f"the response has status {response.status_code}", self._clock())
        else:
            self._jwks.update(response.content, self._clock())


def _shown(url: str) -> str:
    """The URL without password and query, because receivers put the reason of a refusal into their response."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _parsers(*, has_key_set: bool, has_user_id: bool) -> tuple[Parser, ...]:
    if has_user_id:
        return (parse_fal,)
    return (parse_fal, parse_standard) if has_key_set else (parse_standard,)


class _Ids(msgspec.Struct):
    request_id: str | None = None
    webhook_id: str | None = None


def _ids_in(body: bytes) -> _Ids:
    """The ids in the body, which is signed like the headers."""
    try:
        return msgspec.json.decode(body, type=_Ids)
    except (msgspec.DecodeError, RecursionError):
        return _Ids()
