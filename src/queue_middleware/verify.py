"""For receivers: trust a webhook only if the service whose key set you know has signed it, just now.

    verifier = WebhookVerifier("https://service.example.com/fal/queue/.well-known/jwks.json")
    webhook = await verifier.verify(request.headers, await request.body())

Works for this package's webhooks and, with `FAL_JWKS_URL`, for those of fal itself (fal queue contract, section 9). A webhook
may arrive more than once: remember `request_id`.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from .errors import KeysUnavailable, VerificationError
from .wire import webhook as wire

FAL_JWKS_URL = "https://rest.fal.ai/.well-known/jwks.json"
LONGEST_CACHE = 86400.0

_REFETCH_PAUSE = 30.0
_FAILURE_PAUSE = 2.0
_FETCH_TIMEOUT = 10.0
_HEX_SIGNATURE = re.compile(r"[0-9a-fA-F]{128}")
_SECONDS = re.compile(r"[0-9]{1,12}")

Pairs = Iterable[tuple[str | bytes, str | bytes]]


@dataclass(frozen=True, slots=True)
class VerifiedWebhook:
    """A webhook whose signature and time were found good."""

    request_id: str
    user_id: str
    timestamp: int
    """When it was signed, in Unix seconds."""
    body: bytes

    def json(self) -> Any:
        """The body as fal's envelope: `request_id`, `gateway_request_id`, `status`, `payload`, `error`. Raises `ValueError`."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class _Signed:
    """A webhook as it came, well-formed and of our time; nobody has vouched for it yet."""

    webhook: VerifiedWebhook
    message: bytes
    signature: bytes


class WebhookVerifier:
    """Checks signatures against the key set at `jwks_url`, which is fetched when first needed and again after `cache` seconds.

    `tolerance` is how many seconds a webhook's time may differ from ours. A signature by an unknown key makes the set be
    fetched anew, at most every 30 seconds. `client` and `sync_client` fetch it; without them one is made for each fetch. Use
    https for `jwks_url` beyond this machine: who can answer there can sign. One verifier serves many tasks and threads.
    """

    def __init__(
        self,
        jwks_url: str = FAL_JWKS_URL,
        *,
        tolerance: float = 300.0,
        cache: float = LONGEST_CACHE,
        client: httpx.AsyncClient | None = None,
        sync_client: httpx.Client | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not 0 < cache <= LONGEST_CACHE:
            raise ValueError(f"cache must be between 0 and {LONGEST_CACHE:g} seconds")
        self._url = jwks_url
        self._tolerance = tolerance
        self._client = client
        self._sync_client = sync_client
        self._clock = clock
        self._keys = _KeySet(jwks_url, cache)
        self._lock = anyio.Lock()
        self._sync_lock = threading.Lock()

    async def verify(self, headers: Mapping[str, str] | Pairs, body: bytes) -> VerifiedWebhook:
        """The webhook, if it can be trusted. `headers` in any case, `body` the raw bytes, not parsed and written again.

        Raises `VerificationError` with the reason; as `KeysUnavailable` where the key set could not be had.
        """
        signed = _read(headers, body, self._clock(), self._tolerance)
        if self._keys.lacks(signed, self._clock()):
            async with self._lock:
                if self._keys.lacks(signed, self._clock()):
                    self._keys.learn(await self._fetch(), self._clock())
        return self._keys.accept(signed, self._clock())

    def verify_sync(self, headers: Mapping[str, str] | Pairs, body: bytes) -> VerifiedWebhook:
        """The same for code without an event loop, e.g. Flask: `verifier.verify_sync(request.headers, request.get_data())`."""
        signed = _read(headers, body, self._clock(), self._tolerance)
        if self._keys.lacks(signed, self._clock()):
            with self._sync_lock:
                if self._keys.lacks(signed, self._clock()):
                    self._keys.learn(self._fetch_sync(), self._clock())
        return self._keys.accept(signed, self._clock())

    async def _fetch(self) -> httpx.Response | httpx.HTTPError:
        try:
            if self._client is not None:
                return await self._client.get(self._url, timeout=_FETCH_TIMEOUT)
            async with httpx.AsyncClient(timeout=_FETCH_TIMEOUT) as client:
                return await client.get(self._url)
        except httpx.HTTPError as error:
            return error

    def _fetch_sync(self) -> httpx.Response | httpx.HTTPError:
        try:
            if self._sync_client is not None:
                return self._sync_client.get(self._url, timeout=_FETCH_TIMEOUT)
            return httpx.get(self._url, timeout=_FETCH_TIMEOUT)
        except httpx.HTTPError as error:
            return error


class _KeySet:
    """The keys that are known, and when they are to be fetched. Fetches nothing itself."""

    def __init__(self, url: str, cache: float) -> None:
        self._url = url
        self._cache = cache
        self._keys: tuple[VerifyKey, ...] = ()
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._trouble = "it was not fetched yet"

    def lacks(self, signed: _Signed, now: float) -> bool:
        """Whether the set is to be fetched for this webhook, now."""
        if not self._is_fresh(now):
            return not _within(self._tried_at, now, _FAILURE_PAUSE)
        return not _within(self._tried_at, now, _REFETCH_PAUSE) and not self._matches(signed)

    def learn(self, answer: httpx.Response | httpx.HTTPError, now: float) -> None:
        """Take a fetched set; a bad one leaves the old keys until they are too old."""
        self._tried_at = now
        try:
            self._keys = _read_keys(answer)
        except ValueError as error:
            self._trouble = str(error)
        else:
            self._fetched_at = now

    def accept(self, signed: _Signed, now: float) -> VerifiedWebhook:
        """The webhook, if one of the keys signed it. Raises `VerificationError`."""
        if not self._is_fresh(now):
            raise KeysUnavailable(f"the key set {self._url} cannot be had: {self._trouble}")
        if not self._matches(signed):
            raise VerificationError(
                f"the signature is by none of the keys of {self._url}, or the webhook was changed on its way"
            )
        return signed.webhook

    def _is_fresh(self, now: float) -> bool:
        return bool(self._keys) and _within(self._fetched_at, now, self._cache)

    def _matches(self, signed: _Signed) -> bool:
        return any(_verifies(key, signed) for key in self._keys)


def _within(since: float | None, now: float, seconds: float) -> bool:
    # A clock that was set back must not make anything last longer.
    return since is not None and 0 <= now - since < seconds


def _verifies(key: VerifyKey, signed: _Signed) -> bool:
    try:
        key.verify(signed.message, signed.signature)
    except BadSignatureError:
        return False
    return True


def _read(headers: Mapping[str, str] | Pairs, body: bytes, now: float, tolerance: float) -> _Signed:
    if not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError(f"verify needs the raw body as bytes, not {type(body).__name__}: the signature covers each of them")
    body = bytes(body)
    found = _collect(headers)
    request_id, user_id = found[wire.REQUEST_ID], found[wire.USER_ID]
    timestamp, signature = found[wire.TIMESTAMP], found[wire.SIGNATURE]
    if not _SECONDS.fullmatch(timestamp):
        raise VerificationError("the header x-fal-webhook-timestamp is not a number of seconds")
    if abs(now - int(timestamp)) > tolerance:
        raise VerificationError(f"the webhook's time differs from ours by more than {tolerance:g} s")
    if not _HEX_SIGNATURE.fullmatch(signature):
        raise VerificationError("the header x-fal-webhook-signature is not 64 bytes in hex")
    try:
        message = wire.signed_message(request_id, user_id, timestamp, body)
    except UnicodeEncodeError:
        raise VerificationError("a header of the webhook is not text") from None
    return _Signed(VerifiedWebhook(request_id, user_id, int(timestamp), body), message, bytes.fromhex(signature))


def _collect(headers: Mapping[str, str] | Pairs) -> dict[bytes, str]:
    """The four headers of fal, each exactly once."""
    wanted = (wire.REQUEST_ID, wire.USER_ID, wire.TIMESTAMP, wire.SIGNATURE)
    found: dict[bytes, str] = {}
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        key = (name if isinstance(name, bytes) else name.encode("latin-1", "replace")).lower()
        if key not in wanted:
            continue
        if key in found:
            raise VerificationError(f"the header {key.decode()} came twice")
        found[key] = value.decode("latin-1") if isinstance(value, bytes) else value
    for key in wanted:
        if not found.get(key):
            raise VerificationError(f"the header {key.decode()} is missing")
    return found


def _read_keys(answer: httpx.Response | httpx.HTTPError) -> tuple[VerifyKey, ...]:
    """All Ed25519 keys of a key set, each once. Raises `ValueError` with the reason."""
    if isinstance(answer, httpx.HTTPError):
        raise ValueError(str(answer) or type(answer).__name__) from answer
    if answer.status_code != 200:
        raise ValueError(f"it was answered {answer.status_code}")
    try:
        entries = json.loads(answer.content)["keys"]
        public = dict.fromkeys(key for entry in entries if (key := _public_key(entry)))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("it is not a JSON Web Key Set") from None
    if not public:
        raise ValueError("it has no Ed25519 key")
    return tuple(VerifyKey(key) for key in public)


def _public_key(entry: object) -> bytes | None:
    """The 32 bytes of an entry, or None for one of another kind. Only `x` is documented by fal; padding may be there or not."""
    if not isinstance(entry, dict) or (entry.get("kty", "OKP"), entry.get("crv", "Ed25519")) != ("OKP", "Ed25519"):
        return None
    x = entry.get("x")
    if not isinstance(x, str):
        return None
    bare = x.rstrip("=")
    try:
        key = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except ValueError:
        return None
    return key if len(key) == 32 else None
