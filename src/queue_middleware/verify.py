"""For receivers: trust a webhook only if the service that you know has signed it, just now.

    verifier = WebhookVerifier("https://service.example.com/fal/queue/.well-known/jwks.json")
    webhook = await verifier.verify(request.headers, await request.body())

Works for this package's webhooks, with `FAL_JWKS_URL` for those of fal itself (fal queue contract, section 9), and for those of
anybody who follows Standard Webhooks. A webhook may arrive more than once: remember `webhook_id`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import msgspec

from .errors import KeysUnavailable, VerificationError
from .keys import parse_shared_secrets
from .keyset import LONGEST_CACHE, KeySet
from .proofs import Pairs, Proof, Reader, collect, read_fal, read_proofs, read_standard
from .version import USER_AGENT

FAL_JWKS_URL = "https://rest.fal.ai/.well-known/jwks.json"
"""Where fal publishes the keys of its own webhooks."""
TOLERANCE = 300.0
"""Seconds by which a webhook's time may differ from ours, as fal and Standard Webhooks have it."""

_OURS = {"user-agent": USER_AGENT}
_FETCH_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class VerifiedWebhook:
    """A webhook whose signature and time were found good."""

    request_id: str
    """The request that it tells of. Of a sender who does not speak fal, it is the webhook's id."""
    user_id: str
    """Who submitted the request, by fal's headers; empty where there were none."""
    timestamp: int
    """When it was signed, in Unix seconds."""
    body: bytes
    webhook_id: str
    """The same each time it is delivered, and of no other webhook: remember it, to count each once."""

    def json(self) -> Any:
        """The body as fal's envelope: `request_id`, `gateway_request_id`, `status`, `payload`, `error`. Raises `ValueError`."""
        return json.loads(self.body)


class WebhookVerifier:
    """Checks signatures against the key set at `jwks_url`, against `secrets` that are shared with the sender, or against both.

    A webhook has fal's headers, those of Standard Webhooks, or both; one signature that is good is enough, and only what it
    covers is told. Without `jwks_url` and `secrets` the webhooks are fal's own. There `user_id` should be yours: anybody can
    ask fal to send a signed webhook to you. With it, fal's headers are required.

    The set is fetched when first needed, again after `cache` seconds, and for a signature by an unknown key, at most every 30
    seconds. `client` and `sync_client` fetch it; without them one is made for each fetch. Use https for `jwks_url` beyond this
    machine: who can answer there can sign. `secrets` are texts `whsec_…`, several with commas or in a list. `tolerance` is how
    many seconds a webhook's time may differ from ours; `clock` gives Unix seconds. One verifier serves many tasks of an event
    loop, and many threads.
    """

    def __init__(
        self,
        jwks_url: str | None = None,
        *,
        secrets: str | Sequence[str] = (),
        user_id: str | None = None,
        tolerance: float = TOLERANCE,
        cache: float = LONGEST_CACHE,
        client: httpx.AsyncClient | None = None,
        sync_client: httpx.Client | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secrets = parse_shared_secrets(secrets)
        self._url = jwks_url or ("" if self._secrets else FAL_JWKS_URL)
        if user_id is not None and not self._url:
            raise ValueError("user_id is told by fal's headers only, and these cannot be verified without jwks_url")
        self._user_id = user_id
        self._tolerance = tolerance
        self._client = client
        self._sync_client = sync_client
        self._clock = clock
        self._keys = KeySet(cache)
        self._readers = _readers(keys=bool(self._url), user=user_id is not None)
        self._lock = anyio.Lock()
        self._sync_lock = threading.Lock()

    async def verify(self, headers: Mapping[str, str] | Pairs, body: bytes) -> VerifiedWebhook:
        """The webhook, if it can be trusted. `headers` in any case, `body` the raw bytes, not parsed and written again.

        Raises `VerificationError` with the reason; as `KeysUnavailable` where the key set could not be had.
        """
        proofs, body = self._read(headers, body)
        good = self._vouched(proofs)
        if self._wants_keys(good):
            async with self._lock:
                if self._wants_keys(self._vouched(proofs)):
                    await self._fetch()
            good = self._vouched(proofs)
        return self._accept(good, body)

    def verify_sync(self, headers: Mapping[str, str] | Pairs, body: bytes) -> VerifiedWebhook:
        """The same for code without an event loop, e.g. Flask: `verifier.verify_sync(request.headers, request.get_data())`."""
        proofs, body = self._read(headers, body)
        good = self._vouched(proofs)
        if self._wants_keys(good):
            with self._sync_lock:
                if self._wants_keys(self._vouched(proofs)):
                    self._fetch_sync()
            good = self._vouched(proofs)
        return self._accept(good, body)

    # --- deciding

    def _read(self, headers: Mapping[str, str] | Pairs, body: bytes) -> tuple[list[Proof], bytes]:
        if not isinstance(body, bytes | bytearray | memoryview):
            raise TypeError(f"verify needs the raw body as bytes, not {type(body).__name__}: the signature covers each of them")
        body = bytes(body)
        return read_proofs(self._readers, collect(headers), body, self._clock(), self._tolerance), body

    def _vouched(self, proofs: Sequence[Proof]) -> list[Proof]:
        """Those that are signed by somebody we know."""
        fresh = self._keys.is_fresh(self._clock())
        return [proof for proof in proofs if (fresh and self._is_signed(proof)) or self._shares_secret(proof)]

    def _is_signed(self, proof: Proof) -> bool:
        return self._keys.has_signed(proof.message, proof.signatures)

    def _shares_secret(self, proof: Proof) -> bool:
        return any(secret.verify(proof.message, proof.codes) for secret in self._secrets)

    def _wants_keys(self, good: Sequence[Proof]) -> bool:
        return bool(self._url) and self._keys.is_wanted(self._clock(), unknown=not good)

    def _accept(self, good: Sequence[Proof], body: bytes) -> VerifiedWebhook:
        if not good:
            raise self._refusal()
        request_id, user_id, webhook_id = (
            next((value for proof in good if (value := getattr(proof, name)) is not None), None)
            for name in ("request_id", "user_id", "webhook_id")
        )
        if self._user_id is not None and user_id != self._user_id:
            raise VerificationError("the webhook is another user's: its user id is not the one that is expected")
        told = _envelope(body)
        request_id = request_id or told.request_id or webhook_id or ""
        if webhook_id is None and told.webhook_id is not None and told.webhook_id.startswith(f"{request_id}_"):
            webhook_id = told.webhook_id  # fal's headers have the same id for all news of a request
        return VerifiedWebhook(request_id, user_id or "", good[0].timestamp, body, webhook_id or request_id)

    def _refusal(self) -> VerificationError:
        if self._url and not self._keys.is_fresh(self._clock()):
            return KeysUnavailable(f"the key set {self._url} cannot be had: {self._keys.trouble}")
        known = [f"the keys of {self._url}"] * bool(self._url) + ["the secrets"] * bool(self._secrets)
        return VerificationError(f"the signature is by none of {' or '.join(known)}, or the webhook was changed on its way")

    # --- fetching

    async def _fetch(self) -> None:
        try:
            if self._client is not None:
                answer = await self._client.get(self._url, timeout=_FETCH_TIMEOUT, headers=_OURS)
            else:
                async with httpx.AsyncClient(timeout=_FETCH_TIMEOUT) as client:
                    answer = await client.get(self._url, headers=_OURS)
        except (httpx.HTTPError, OSError) as error:
            self._keys.miss(str(error) or type(error).__name__, self._clock())
        else:
            self._take(answer)

    def _fetch_sync(self) -> None:
        try:
            if self._sync_client is not None:
                answer = self._sync_client.get(self._url, timeout=_FETCH_TIMEOUT, headers=_OURS)
            else:
                answer = httpx.get(self._url, timeout=_FETCH_TIMEOUT, headers=_OURS)
        except (httpx.HTTPError, OSError) as error:
            self._keys.miss(str(error) or type(error).__name__, self._clock())
        else:
            self._take(answer)

    def _take(self, answer: httpx.Response) -> None:
        if answer.status_code != 200:
            self._keys.miss(f"it was answered {answer.status_code}", self._clock())
        else:
            self._keys.learn(answer.content, self._clock())


def _readers(*, keys: bool, user: bool) -> tuple[Reader, ...]:
    if user:
        return (read_fal,)
    return (read_fal, read_standard) if keys else (read_standard,)


class _Envelope(msgspec.Struct):
    request_id: str | None = None
    webhook_id: str | None = None


def _envelope(body: bytes) -> _Envelope:
    """As the body has it; it is signed like the headers."""
    try:
        return msgspec.json.decode(body, type=_Envelope)
    except (msgspec.DecodeError, RecursionError):
        return _Envelope()
