"""Signatures of callbacks: required if the keys of the called host are configured, and then without exception."""

import base64
import json
import time

import httpx
import pytest

from queue_middleware.errors import KeysUnavailable, SettingsError, VerificationError
from queue_middleware.settings import Settings
from queue_middleware.tasks.callback_auth import CallbackVerifier
from queue_middleware.webhooks.formats import fal
from queue_middleware.webhooks.signing.keyring import KeyRing
from queue_middleware.webhooks.signing.keys import KeyPair
from queue_middleware.webhooks.signing.signer import Signer
from tests.support.providers import Replicate

NOW = 1_700_000_000
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OTHER = "whsec_" + base64.b64encode(b"fedcba987654321001234567").decode()
BODY = json.dumps({"id": "x", "status": "succeeded"}).encode()
TARGET = "https://api.replicate.com/v1/predictions"
FAL = "https://queue.fal.run/fal-ai/flux"
JWKS = "https://keys.example/jwks.json"


def standard(body=BODY, at=NOW, secret=SECRET, **changes):
    signed = {**Replicate.signed("msg_1", str(at), body, secret), **changes}
    return tuple((name.encode(), value.encode()) for name, value in signed.items() if value is not None)


def replicate(*secrets: str) -> CallbackVerifier:
    return CallbackVerifier([("api.replicate.com", secret) for secret in secrets or (SECRET,)], clock=lambda: NOW)


async def test_a_valid_signature_is_accepted():
    await replicate().verify(TARGET, standard(), BODY)
    await replicate(OTHER, SECRET).verify(TARGET, standard(), BODY)
    await replicate(SECRET, OTHER).verify("https://API.replicate.com:443/x", standard(), BODY)
    signed_twice = standard(**{"webhook-signature": "v1a,xxx v1,AAAA " + dict(standard())[b"webhook-signature"].decode()})
    await replicate().verify(TARGET, signed_twice, BODY)
    capitals = tuple((name.decode().title().encode(), value) for name, value in standard())
    await replicate().verify(TARGET, capitals, BODY)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        standard(secret=OTHER),
        standard(body=b"{}"),
        standard(at=NOW - 301),
        standard(at=NOW + 301),
        standard(**{"webhook-timestamp": str(NOW + 1)}),
        standard(**{"webhook-id": "msg_2"}),
        standard(**{"webhook-signature": "v1a," + "A" * 88}),
        standard() + standard()[:1],
    ],
)
async def test_everything_else_is_refused(headers):
    with pytest.raises(VerificationError) as refusal:
        await replicate(SECRET).verify(TARGET, headers, BODY)
    assert refusal.value.status == 401
    with pytest.raises(VerificationError):
        await replicate("whsec_" + base64.b64encode(b"x" * 24).decode(), SECRET).verify(TARGET, headers, BODY)


@pytest.mark.parametrize("target", ["https://gateway.example/", "", "/work", "https://queue.fal.run/x", "https://[bad"])
async def test_the_called_host_decides_whether_a_signature_is_required(target):
    await replicate().verify(target, (), BODY)
    await CallbackVerifier(()).verify(TARGET, (), BODY)


async def test_fal_signs_with_a_published_key():
    signer = Signer(KeyRing.of(KeyPair.generate()))
    served = {"status": 200}
    transport = httpx.MockTransport(lambda request: httpx.Response(served["status"], json=signer.jwks()))
    async with httpx.AsyncClient(transport=transport) as client:
        verifier = CallbackVerifier([("queue.fal.run", JWKS)], client=client)
        now = str(int(time.time()))
        headers = fal.webhook_headers("1", "me", now, signer.sign(fal.signed_message("1", "me", now, BODY)))
        await verifier.verify(FAL, headers, BODY)
        with pytest.raises(VerificationError):
            await verifier.verify(FAL, headers, BODY + b" ")
        served["status"] = 500
        with pytest.raises(KeysUnavailable):
            await CallbackVerifier([("queue.fal.run", JWKS)], client=client).verify(FAL, headers, BODY)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_%%%%", "whsec_AAAA", "whsec_ä"])
def test_a_malformed_secret_is_refused_and_not_repeated(secret):
    with pytest.raises(SettingsError, match=r"callback_keys: .* a webhook secret is whsec_") as refusal:
        CallbackVerifier([("api.replicate.com", secret)])
    assert secret == "whsec_" or secret not in refusal.value.detail


def test_the_option():
    def load(value):
        return Settings.load({}, {"QUEUE_CALLBACK_KEYS": value}).callback_keys

    assert Settings.load({}, {}).callback_keys == ()
    both = (("api.replicate.com", SECRET), ("queue.fal.run", JWKS))
    assert load(f"api.replicate.com={SECRET}, queue.fal.run={JWKS}") == both
    with pytest.raises(SettingsError, match="QUEUE_CALLBACK_KEYS: it takes hosts") as refusal:
        load(SECRET)
    assert SECRET not in refusal.value.detail
    CallbackVerifier(both)
