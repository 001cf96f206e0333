"""Whether a call of a callback URL is signed by the provider that it ought to come from, where we know his keys.

The callback id is a secret already; a signature also tells a provider from somebody who has seen the id. It is asked for by the
host that the task has called, because others may call back in the same form with keys of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import httpx

from .errors import SettingsError, VerificationError
from .hosts import canonical_host, host_of
from .models import Headers
from .optiontexts import WHSEC_PREFIX
from .verify import WebhookVerifier


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

    async def check(self, target: str, headers: Headers, body: bytes) -> None:
        """Raise `VerificationError`, as `KeysUnavailable` where nothing can be said, unless it is signed or needs not be.

        `target` is the URL that the task has called; `body` is raw.
        """
        refusal: VerificationError | None = None
        for verifier in self._verifiers.get(host_of(target), ()) if self._verifiers else ():
            try:
                await verifier.verify(headers, body)
            except VerificationError as error:
                refusal = error
            else:
                return
        if refusal is not None:
            raise refusal
