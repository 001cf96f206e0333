"""Verifies that callbacks are signed by the provider that the task has called, if the operator has configured its keys.

The callback id is a secret already; a signature also protects against a party that has seen the id. Which keys are required
follows from the host of the task's `targetUrl`, because other services may send callbacks in the same form with their own keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import httpx

from queue_middleware.errors import SettingsError, VerificationError
from queue_middleware.jobs.models import Headers
from queue_middleware.receivers.verifier import WebhookVerifier
from queue_middleware.secret_parsers import WHSEC_PREFIX
from queue_middleware.syntax.hosts import canonical_host, host_of


class CallbackVerifier:
    """Holds the verifiers of each host.

    `sources` are pairs of the host of a `targetUrl` and the URL of a JWKS (as fal has one) or a secret `whsec_…` (as Replicate
    has one). If a host has several, one matching key is enough. `client` fetches JWKS, `clock` returns Unix seconds. Raises
    `SettingsError` for a malformed secret or URL.
    """

    def __init__(
        self,
        sources: Iterable[tuple[str, str]],
        *,
        client: httpx.AsyncClient | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._verifiers: dict[str, list[WebhookVerifier]] = {}
        for host, source in sources:
            try:
                if source.startswith(WHSEC_PREFIX):
                    verifier = WebhookVerifier(secrets=[source], clock=clock)
                else:
                    verifier = WebhookVerifier(source, client=client, clock=clock)
            except SettingsError as error:
                raise SettingsError(f"callback_keys: {host}: {error.detail}") from None
            self._verifiers.setdefault(canonical_host(host), []).append(verifier)

    async def verify(self, target: str, headers: Headers, body: bytes) -> None:
        """Raise `VerificationError` for a callback that has to be signed and is not.

        Raises `KeysUnavailable`, a `VerificationError`, if the keys cannot be fetched. `target` is the URL that the task has
        called; `body` is the raw body.
        """
        if not self._verifiers:
            return
        refusal: VerificationError | None = None
        for verifier in self._verifiers.get(host_of(target), ()):
            try:
                await verifier.verify(headers, body)
            except VerificationError as error:
                refusal = error
            else:
                return
        if refusal is not None:
            raise refusal
