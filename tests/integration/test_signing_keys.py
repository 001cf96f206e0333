"""Keys that change while the queue runs, as receivers see the signatures."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import standardwebhooks
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware, cli
from queue_middleware.errors import SettingsError, VerificationError
from queue_middleware.verify import WebhookVerifier
from queue_middleware.webhooks.signing import reloader
from queue_middleware.webhooks.signing.keyfile import KeyFile
from queue_middleware.webhooks.signing.keyring import KeyRing, format_time
from queue_middleware.webhooks.signing.keys import KeyPair
from tests.support.queue_client import Queue, eventually, serving
from tests.support.webhook_receiver import Receiver, Webhook, receiving

JWKS = "/fal/queue/.well-known/jwks.json"
FIRST = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECOND = "whsec_" + base64.b64encode(b"another secret of 32 characters.").decode()


async def ask(request: Request) -> Response:
    return JSONResponse({"picture": "ä cat"})


APP = Starlette(routes=[Route("/ask", ask, methods=["POST"])])


class Service:
    """A queue with a receiver."""

    def __init__(self, queue: Queue, receiver: Receiver) -> None:
        self.queue, self.receiver = queue, receiver

    async def webhook(self) -> Webhook:
        """The webhook of a new request."""
        request_id = await self.queue.submit("POST", f"/ask?fal_webhook={self.receiver.url}/")
        (arrived,) = await eventually(lambda: self.receiver.webhooks_for(request_id))
        return arrived

    async def published(self) -> set[str]:
        return {entry["kid"] for entry in (await self.queue.client.get(JWKS)).json()["keys"]}

    def verifier(self) -> WebhookVerifier:
        """The verifier of a receiver that has not fetched any keys yet."""
        return WebhookVerifier(f"http://service.test{JWKS}", client=self.queue.client)


@asynccontextmanager
async def running_service(database: Path, **options: object) -> AsyncIterator[Service]:
    async with receiving() as receiver, serving(APP, database, outbound_allow="127.0.0.1", **options) as queue:
        yield Service(queue, receiver)


@pytest.fixture
def file(database: Path) -> KeyFile:
    return KeyFile(database.with_name(f"{database.name}.key"))


async def test_a_webhook_verifies_in_every_format(database: Path) -> None:
    async with running_service(database, webhook_secret=f"{FIRST},{SECOND}") as service:
        webhook = await service.webhook()
        body, headers = webhook.body, webhook.headers
        verified = await service.verifier().verify(headers, body)
        assert (verified.request_id, verified.webhook_id, verified.user_id) == (
            webhook.request_id,
            webhook.request_id,
            "anonymous",
        )
        of_fal = {name: value for name, value in headers.items() if name.startswith("x-fal-")}
        of_standard = {name: value for name, value in headers.items() if name.startswith("webhook-")}
        assert (await service.verifier().verify(of_fal, body)).request_id == webhook.request_id
        assert (await service.verifier().verify(of_standard, body)).request_id == webhook.request_id
        for secret in (FIRST, SECOND):
            assert WebhookVerifier(secrets=secret).verify_sync(headers, body).request_id == webhook.request_id
            assert standardwebhooks.Webhook(secret).verify(body, headers)["payload"] == {"picture": "ä cat"}
            with pytest.raises(standardwebhooks.WebhookVerificationError):
                standardwebhooks.Webhook(secret).verify(body + b" ", headers)


async def test_without_a_secret_there_is_no_code(database: Path) -> None:
    async with running_service(database) as service:
        webhook = await service.webhook()
    assert [word.partition(",")[0] for word in webhook.headers["webhook-signature"].split()] == ["v1a"]


async def test_a_rotation_needs_no_restart(database: Path, file: KeyFile, capsys: pytest.CaptureFixture[str]) -> None:
    async with running_service(database) as service:
        before = await service.published()
        cached = service.verifier()
        await cached.verify((first := await service.webhook()).headers, first.body)

        assert cli.main(["keys", "rotate", "--database", str(database)]) == 0
        assert len(await service.published() - before) == 1
        await cached.verify((second := await service.webhook()).headers, second.body)  # its activation is in the future

        assert cli.main(["keys", "rotate", "--compromised", "--database", str(database)]) == 0
        after = await service.published()
        assert len(after) == 1
        assert not after & before
        third = await service.webhook()
        await service.verifier().verify(third.headers, third.body)
        with pytest.raises(VerificationError, match="none of the keys"):
            await service.verifier().verify(second.headers, second.body)
    assert file.read().keys[0].pair.seed_hex() not in capsys.readouterr().out


async def test_for_two_days_the_old_key_signs_beside_the_new(database: Path, file: KeyFile) -> None:
    old, new = KeyPair.generate(), KeyPair.generate()
    file.path.write_text(f"{old.seed_hex()}\n")
    file.path.chmod(0o600)
    async with running_service(database) as service:
        file.path.write_text(f"{old.seed_hex()}\n{new.seed_hex()}@2026-01-01T00:00:00Z\n")
        await service.published()
        webhook = await service.webhook()
        signed = await service.verifier().verify(webhook.headers, webhook.body)
        assert await service.published() == {new.kid}  # its activation was long ago
        file.path.write_text(f"{old.seed_hex()}\n{new.seed_hex()}@{format_time(signed.timestamp - 3600)}\n")
        assert await service.published() == {old.kid, new.kid}
        webhook = await service.webhook()
        assert len(webhook.headers["webhook-signature"].split()) == 2
        for pair in (old, new):
            transport = httpx.MockTransport(
                lambda request, pair=pair: httpx.Response(200, json={"keys": [pair.jwk(padded=True)]})
            )
            pinned = WebhookVerifier("https://pinned.test", sync_client=httpx.Client(transport=transport))
            standard = {name: value for name, value in webhook.headers.items() if name.startswith("webhook-")}
            assert pinned.verify_sync(standard, webhook.body).request_id == webhook.request_id


async def test_every_process_reloads_the_keys(database: Path, file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloader, "CHECK_INTERVAL", 0.01)
    async with running_service(database) as one, running_service(database) as other:
        ring = file.replace_all()
        for service in (one, other):

            async def signed_with_new_key(service: Service = service) -> bool:
                webhook = await service.webhook()
                try:
                    await one.verifier().verify(webhook.headers, webhook.body)
                except VerificationError:
                    return False
                return True

            await eventually(signed_with_new_key)
            assert await service.published() == {ring.keys[0].pair.kid}


async def test_keys_in_a_mounted_file(database: Path, tmp_path: Path) -> None:
    pair = KeyPair.generate()
    mounted = tmp_path / "signing-key"
    mounted.write_text(KeyRing.of(pair).dump())
    mounted.chmod(0o400)
    async with running_service(database, signing_key=mounted) as service:
        assert await service.published() == {pair.kid}
    assert not database.with_name(f"{database.name}.key").exists()


@pytest.mark.parametrize(
    "options", [{"signing_key": "secret words"}, {"webhook_secret": "secret words"}, {"webhook_secret": ["whsec_words"]}]
)
def test_a_malformed_key_or_secret_is_reported_with_its_source(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=next(iter(options))) as caught:
        QueueMiddleware(APP, database=tmp_path / "queue.sqlite3", **options)
    assert "words" not in caught.value.detail


async def test_nothing_private_is_logged_or_stored(database: Path, file: KeyFile, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with running_service(database, webhook_secret=FIRST) as service:
            await service.webhook()
            file.rotate()
            await service.published()
            seeds = [key.pair.seed_hex() for key in file.read().keys]
            stored = b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*") if path != file.path)
    assert "signing keys reloaded" in caplog.text
    for secret in (*seeds, FIRST, FIRST.removeprefix("whsec_")):
        assert secret not in caplog.text
        assert secret.encode() not in stored
    for seed in seeds:
        assert bytes.fromhex(seed) not in stored
