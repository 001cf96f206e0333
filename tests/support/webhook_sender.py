"""A service that signs webhooks, for tests of receivers. It serves its key set, and tests can replace its keys."""

from __future__ import annotations

import httpx

from queue_middleware.webhooks.formats import fal, standard
from queue_middleware.webhooks.signing.keyring import KeyRing
from queue_middleware.webhooks.signing.keys import KeyPair, SharedSecret
from queue_middleware.webhooks.signing.signer import Signer

NOW = 1_700_000_000
JWKS_URL = "https://sender.example/fal/queue/.well-known/jwks.json"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"request_id": "id", "status": "OK", "payload": {"\xc3\xa4": 1}}'


def make_signer() -> Signer:
    return Signer(KeyRing.of(KeyPair.generate()), [SharedSecret.parse(SECRET)])


class Sender:
    """A handler for httpx's `MockTransport` that responds with the key set."""

    def __init__(self) -> None:
        self.signer = make_signer()
        self.response: httpx.Response | Exception | None = None
        self.fetches = 0
        self.urls: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.fetches += 1
        self.urls.append(str(request.url))
        if isinstance(self.response, Exception):
            raise self.response
        return self.response or httpx.Response(200, json=self.signer.jwks())

    @property
    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self))

    @property
    def sync_client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self))

    def webhook(self, at: float = NOW, body: bytes = BODY, user: str = "user") -> dict[str, str]:
        """The headers in fal's format."""
        timestamp = str(int(at))
        signature = self.signer.sign(fal.signed_message("id", user, timestamp, body))
        return {name.decode(): value.decode() for name, value in fal.webhook_headers("id", user, timestamp, signature)}

    def standard(
        self, at: float = NOW, body: bytes = BODY, webhook_id: str = "id_1", *, versions: str = "v1a v1"
    ) -> dict[str, str]:
        """The headers in the format of Standard Webhooks."""
        timestamp = str(int(at))
        message = standard.signed_message(webhook_id, timestamp, body)
        signatures = self.signer.sign_all(message) if "v1a" in versions.split() else []
        macs = self.signer.macs(message) if "v1" in versions.split() else []
        headers = standard.webhook_headers(webhook_id, timestamp, signatures, macs)
        return {name.decode(): value.decode() for name, value in headers}
