import asyncio
import base64
import errno
import gc
import hashlib
import json
import sys
from contextlib import suppress

import httpx
import pytest
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from queue_middleware.errors import KeysUnavailable, VerificationError
from queue_middleware.verify import FAL_JWKS_URL, WebhookVerifier
from queue_middleware.webhooks.formats.fal import signed_message, webhook_headers
from queue_middleware.webhooks.signing.keys import KeyPair
from tests.support.clock import Seconds
from tests.support.webhook_sender import BODY, JWKS_URL, NOW, SECRET, Sender, make_signer

OTHER = "whsec_" + base64.b64encode(b"another secret of 32 characters.").decode()


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def clock() -> Seconds:
    return Seconds(NOW)


@pytest.fixture
def verifier(sender, clock) -> WebhookVerifier:
    return WebhookVerifier(JWKS_URL, client=sender.client, sync_client=sender.sync_client, clock=clock)


async def test_a_good_webhook(sender, verifier):
    webhook = await verifier.verify(sender.webhook(), BODY)
    assert (webhook.request_id, webhook.user_id, webhook.timestamp, webhook.body) == ("id", "user", NOW, BODY)
    assert webhook.json()["payload"] == {"ä": 1}


def test_without_an_event_loop(sender, verifier):
    assert verifier.verify_sync(sender.webhook(), BODY).request_id == "id"
    with pytest.raises(VerificationError):
        verifier.verify_sync(sender.webhook(), BODY + b" ")


async def test_async_and_sync_verification_share_the_keys(sender, verifier):
    verifier.verify_sync(sender.webhook(), BODY)
    await verifier.verify(sender.webhook(), BODY)
    assert sender.fetches == 1


@pytest.mark.parametrize(
    "shape",
    [
        lambda headers: headers,
        lambda headers: {name.upper(): value for name, value in headers.items()},
        lambda headers: list(headers.items()),
        lambda headers: [(name.title().encode(), value.encode()) for name, value in headers.items()],
        lambda headers: httpx.Headers(headers),
        lambda headers: iter([("accept", "*/*"), ("accept", "text/plain"), *headers.items()]),
    ],
)
async def test_headers_in_any_shape(sender, verifier, shape):
    await verifier.verify(shape(sender.webhook()), BODY)


@pytest.mark.parametrize("body", [bytearray(BODY), memoryview(BODY)])
async def test_bytes_of_any_kind(sender, verifier, body):
    assert (await verifier.verify(sender.webhook(), body)).body == BODY


@pytest.mark.parametrize("body", [BODY.decode(), json.loads(BODY), None])
async def test_a_parsed_body_is_refused(sender, verifier, body):
    with pytest.raises(TypeError, match="raw body"):
        await verifier.verify(sender.webhook(), body)


@pytest.mark.parametrize("change", [{}, {"x-fal-webhook-signature": "0" * 128}, {"x-fal-webhook-timestamp": "1"}])
def test_no_body_is_kept(sender, verifier, change):
    """A client that cannot sign must not be able to fill the memory of a receiver, even for a moment."""

    def receive(body: bytes) -> None:
        with suppress(VerificationError):
            verifier.verify_sync({**sender.webhook(body=body), **change}, body)

    body = json.dumps("x" * 1000).encode()
    before = sys.getrefcount(body)
    gc.disable()
    try:
        receive(body)
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()


@pytest.mark.parametrize("padded", [[False], [True], [False, True]])
async def test_keys_with_and_without_padding(sender, verifier, padded):
    (key,) = sender.signer.ring.published(NOW)
    sender.response = httpx.Response(200, json={"keys": [key.jwk(padded=one) for one in padded]})
    await verifier.verify(sender.webhook(), BODY)


async def test_every_key_is_tried_and_invalid_ones_are_skipped(sender, verifier):
    strange = [
        {"kty": "RSA", "n": "abc"},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
        {"x": 1},
        {"x": "!"},
        {"x": "A"},
        {"x": "AAAA"},
        {"x": "ü" * 43},
        {},
    ]
    (key,) = sender.signer.ring.published(NOW)
    keys = [*strange, KeyPair.generate().jwk(padded=False), {"x": key.jwk(padded=False)["x"]}]
    sender.response = httpx.Response(200, json={"keys": keys})
    await verifier.verify(sender.webhook(), BODY)


def _changed(name, value):
    return lambda headers: {**headers, name: value}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda headers: {}, "missing"),
        (lambda headers: [*headers.items(), ("X-Fal-Webhook-Request-Id", "other")], "is repeated"),
        (_changed("x-fal-webhook-request-id", ""), "request-id is missing"),
        (_changed("x-fal-webhook-user-id", ""), "user-id is missing"),
        (_changed("x-fal-webhook-timestamp", ""), "timestamp is missing"),
        (_changed("x-fal-webhook-signature", ""), "signature is missing"),
        (_changed("x-fal-webhook-timestamp", "soon"), "not a number"),
        (_changed("x-fal-webhook-timestamp", "1_700_000_000"), "not a number"),
        (_changed("x-fal-webhook-timestamp", "\u0661" * 10), "not a number"),
        (_changed("x-fal-webhook-timestamp", "-1"), "not a number"),
        (_changed("x-fal-webhook-timestamp", "9" * 5000), "not a number"),
        (_changed("x-fal-webhook-signature", "00" * 63), "not 64 bytes"),
        (_changed("x-fal-webhook-signature", "zz" * 64), "not 64 bytes"),
        (_changed("x-fal-webhook-user-id", "\ud800"), "not valid text"),
        (_changed("x-fal-webhook-request-id", "other"), "none of the keys"),
        (_changed("x-fal-webhook-user-id", "other"), "none of the keys"),
        (_changed("x-fal-webhook-timestamp", str(NOW + 1)), "none of the keys"),
        (_changed("x-fal-webhook-signature", "00" * 64), "none of the keys"),
    ],
)
async def test_the_error_of_a_bad_webhook_has_the_reason(sender, verifier, change, reason):
    with pytest.raises(VerificationError, match=reason) as caught:
        await verifier.verify(change(sender.webhook()), BODY)
    assert not isinstance(caught.value, KeysUnavailable)
    assert caught.value.status == 401


async def test_a_changed_body(sender, verifier):
    with pytest.raises(VerificationError, match="changed in transit"):
        await verifier.verify(sender.webhook(), BODY.replace(b"OK", b"KO"))


@pytest.mark.parametrize(("age", "good"), [(0, True), (300, True), (-300, True), (301, False), (-301, False), (-NOW, False)])
async def test_the_time_may_differ_by_five_minutes(sender, verifier, age, good):
    headers = sender.webhook(at=NOW - age)
    if good:
        await verifier.verify(headers, BODY)
    else:
        with pytest.raises(VerificationError, match="differs from this machine's clock by more than 300 s"):
            await verifier.verify(headers, BODY)
        assert sender.fetches == 0


async def test_keys_are_cached_for_a_day(sender, verifier, clock):
    await verifier.verify(sender.webhook(), BODY)
    clock.now += 86399
    await verifier.verify(sender.webhook(at=int(clock.now)), BODY)
    assert sender.fetches == 1
    clock.now += 1
    await verifier.verify(sender.webhook(at=int(clock.now)), BODY)
    assert sender.fetches == 2


async def test_a_clock_that_is_set_back_does_not_prolong_them(sender, verifier, clock):
    await verifier.verify(sender.webhook(), BODY)
    clock.now -= 10
    await verifier.verify(sender.webhook(), BODY)
    assert sender.fetches == 2


async def test_a_new_key_is_found(sender, verifier, clock):
    await verifier.verify(sender.webhook(), BODY)
    sender.signer = make_signer()
    clock.now += 30
    await verifier.verify(sender.webhook(), BODY)
    assert sender.fetches == 2


async def test_bad_signatures_do_not_cause_many_fetches(sender, verifier, clock):
    forged = {**sender.webhook(), "x-fal-webhook-signature": "00" * 64}
    for second in range(60):
        with pytest.raises(VerificationError):
            await verifier.verify(forged, BODY)
        clock.now = NOW + second
    assert sender.fetches == 2


async def test_many_at_once_fetch_once(sender, clock):
    async def slowly(request):
        await asyncio.sleep(0)
        return sender(request)

    verifier = WebhookVerifier(
        "https://s.example/", client=httpx.AsyncClient(transport=httpx.MockTransport(slowly)), clock=clock
    )
    await asyncio.gather(*(verifier.verify(sender.webhook(), BODY) for _ in range(20)))
    assert sender.fetches == 1


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (httpx.ConnectError("no route"), "no route"),
        (httpx.ReadTimeout(""), "ReadTimeout"),
        (httpx.Response(500, json={"keys": []}), "status 500"),
        (httpx.Response(302, headers={"location": "https://elsewhere.example/"}), "status 302"),
        (httpx.Response(200, content=b"<html>"), "not a JSON Web Key Set"),
        (httpx.Response(200, content=b"\xff"), "not a JSON Web Key Set"),
        (httpx.Response(200, content=b"[" * 100_000), "not a JSON Web Key Set"),
        (httpx.Response(200, json=[]), "not a JSON Web Key Set"),
        (httpx.Response(200, json={"keys": None}), "not a JSON Web Key Set"),
        (httpx.Response(200, json={"keys": {"a": 1}}), "no Ed25519 key"),
        (httpx.Response(200, json={"keys": [1]}), "no Ed25519 key"),
        (httpx.Response(200, json={"keys": []}), "no Ed25519 key"),
    ],
)
async def test_a_key_set_that_cannot_be_fetched_is_a_temporary_error(sender, verifier, clock, response, reason):
    sender.response = response
    with pytest.raises(KeysUnavailable, match=reason) as caught:
        await verifier.verify(sender.webhook(), BODY)
    assert caught.value.status == 503
    with pytest.raises(KeysUnavailable, match=reason):
        await verifier.verify(sender.webhook(), BODY)
    assert sender.fetches == 1
    sender.response = None
    clock.now += 2
    await verifier.verify(sender.webhook(), BODY)


async def test_a_failed_refetch_keeps_the_known_keys(sender, verifier, clock):
    await verifier.verify(sender.webhook(), BODY)
    sender.response = httpx.ConnectError("down")
    clock.now += 60
    with pytest.raises(VerificationError, match="none of the keys"):
        await verifier.verify({**sender.webhook(), "x-fal-webhook-signature": "00" * 64}, BODY)
    await verifier.verify(sender.webhook(), BODY)


@pytest.mark.parametrize("cache", [0, -1, 86401])
def test_a_cache_of_more_than_a_day_is_refused(cache):
    with pytest.raises(ValueError, match="cache"):
        WebhookVerifier(cache=cache)


def test_fals_own_address_is_the_default():
    assert FAL_JWKS_URL == "https://rest.fal.ai/.well-known/jwks.json"


def test_the_receiver_that_fal_documents_for_python():
    """It decodes `x` as it is, which fails without padding, and tries every key."""
    signer = make_signer()
    message = f"id\nuser\n{NOW}\n{hashlib.sha256(BODY).hexdigest()}".encode()
    headers = dict(webhook_headers("id", "user", str(NOW), signer.sign(signed_message("id", "user", str(NOW), BODY))))
    outcomes = []
    for entry in signer.jwks()["keys"]:
        try:
            key = VerifyKey(base64.urlsafe_b64decode(entry["x"]))
            key.verify(message, bytes.fromhex(headers[b"x-fal-webhook-signature"].decode()))
            outcomes.append(True)
        except (ValueError, BadSignatureError):
            outcomes.append(False)
    assert outcomes == [False, True]


# --- Standard Webhooks


async def test_the_headers_of_standard_webhooks_alone(sender, verifier):
    webhook = await verifier.verify(sender.standard(), BODY)
    assert (webhook.webhook_id, webhook.request_id, webhook.user_id, webhook.timestamp) == ("id_1", "id", "", NOW)
    assert verifier.verify_sync(sender.standard(), BODY) == webhook
    assert sender.fetches == 1


async def test_both_formats_together_give_all_values(sender, verifier):
    webhook = await verifier.verify({**sender.webhook(), **sender.standard()}, BODY)
    assert (webhook.webhook_id, webhook.request_id, webhook.user_id) == ("id_1", "id", "user")


async def test_fals_headers_alone_give_no_other_id(sender, verifier):
    assert (await verifier.verify(sender.webhook(), BODY)).webhook_id == "id"


async def test_events_of_a_request_have_their_own_ids_with_fals_headers_too(sender, verifier):
    """fal's headers have one id for all webhooks of a request; a receiver that detects repeats by it would drop the end."""
    by_user = WebhookVerifier(JWKS_URL, user_id="user", client=sender.client, clock=lambda: NOW)
    progress, end = b'{"request_id": "id", "type": "request.started", "webhook_id": "id_1"}', BODY
    forged = b'{"request_id": "id", "webhook_id": "another_1"}'
    for verify in (verifier, by_user):
        ids = [(await verify.verify(sender.webhook(body=body), body)).webhook_id for body in (progress, end, forged)]
        assert ids == ["id_1", "id", "id"]
    assert (await verifier.verify(sender.webhook(body=progress), progress)).request_id == "id"


async def test_values_without_a_valid_signature_are_not_returned(sender, verifier):
    """If the headers of one format were changed, only values of the other are returned."""
    fal, other = sender.webhook(), sender.standard()
    webhook = await verifier.verify({**fal, **other, "webhook-id": "another"}, BODY)
    assert (webhook.webhook_id, webhook.request_id, webhook.user_id) == ("id", "id", "user")
    webhook = await verifier.verify({**fal, **other, "x-fal-webhook-user-id": "other"}, BODY)
    assert (webhook.webhook_id, webhook.request_id, webhook.user_id) == ("id_1", "id", "")
    webhook = await verifier.verify({**fal, **other, "x-fal-webhook-timestamp": "soon"}, BODY)
    assert (webhook.webhook_id, webhook.user_id) == ("id_1", "")
    with pytest.raises(VerificationError, match="none of the keys"):
        await verifier.verify({**fal, **other, "webhook-id": "another", "x-fal-webhook-user-id": "other"}, BODY)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_changed("webhook-id", ""), "webhook-id is missing"),
        (_changed("webhook-timestamp", ""), "webhook-timestamp is missing"),
        (_changed("webhook-signature", ""), "webhook-signature is missing"),
        (_changed("webhook-timestamp", "1.7e9"), "webhook-timestamp is not a number"),
        (_changed("webhook-timestamp", str(NOW - 301)), "more than 300 s"),
        (_changed("webhook-id", "\ud800"), "not valid text"),
        (_changed("webhook-id", "other"), "none of the keys"),
        (_changed("webhook-timestamp", str(NOW - 1)), "none of the keys"),
        (_changed("webhook-signature", "v1a"), "neither 'v1a,' nor 'v1,'"),
        (_changed("webhook-signature", "v1a,!!!"), "neither 'v1a,' nor 'v1,'"),
        (_changed("webhook-signature", "v1a," + "A" * 84), "neither 'v1a,' nor 'v1,'"),
        (_changed("webhook-signature", "v2," + "A" * 86 + "=="), "neither 'v1a,' nor 'v1,'"),
        (_changed("webhook-signature", "v1a," + "A" * 86 + "=="), "none of the keys"),
        (_changed("webhook-signature", " ".join(["v1a," + "A" * 86 + "=="] * 17)), "more than 16 signatures"),
        (lambda headers: [*headers.items(), ("Webhook-Id", "other")], "webhook-id is repeated"),
    ],
)
async def test_the_error_of_a_bad_standard_webhook_has_the_reason(sender, verifier, change, reason):
    with pytest.raises(VerificationError, match=reason) as caught:
        await verifier.verify(change(sender.standard()), BODY)
    assert caught.value.status == 401


async def test_one_good_signature_among_others_is_enough(sender, verifier):
    headers = sender.standard(versions="v1a")
    others = "v1,c2hvcnQ= v1a,bm9wZQ== v9,x " + "v1a," + "A" * 86 + "=="
    headers["webhook-signature"] = f"{others} {headers['webhook-signature']}"
    await verifier.verify(headers, BODY)


# --- shared secrets


async def test_a_shared_secret_needs_no_key_set(sender, clock):
    verifier = WebhookVerifier(secrets=SECRET, clock=clock, client=sender.client)
    webhook = await verifier.verify({**sender.webhook(), **sender.standard(versions="v1")}, BODY)
    assert (webhook.webhook_id, webhook.request_id, webhook.user_id) == ("id_1", "id", "")
    assert verifier.verify_sync(sender.standard(), BODY).webhook_id == "id_1"
    assert sender.fetches == 0


@pytest.mark.parametrize("secrets", [[OTHER, SECRET], f"{OTHER},{SECRET}", f"{SECRET} {OTHER}"])
def test_secrets_in_rotation(sender, clock, secrets):
    WebhookVerifier(secrets=secrets, clock=clock).verify_sync(sender.standard(), BODY)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (lambda sender: sender.webhook(), "webhook-id is missing"),
        (lambda sender: sender.standard(versions="v1a"), "none of the secrets, or"),
        (lambda sender: {**sender.standard(), "webhook-id": "other"}, "none of the secrets, or"),
        (lambda sender: sender.standard(at=NOW - 301), "more than 300 s"),
    ],
)
def test_a_webhook_without_the_secret_is_refused(sender, clock, headers, reason):
    with pytest.raises(VerificationError, match=reason):
        WebhookVerifier(secrets=SECRET, clock=clock).verify_sync(headers(sender), BODY)
    with pytest.raises(VerificationError, match=r"none of the secrets, or"):
        WebhookVerifier(secrets=OTHER, clock=clock).verify_sync(sender.standard(), BODY)


def test_a_malformed_secret_is_refused():
    with pytest.raises(ValueError, match="a webhook secret is whsec_"):
        WebhookVerifier(secrets="secret")


async def test_keys_and_secrets_together(sender, clock):
    verifier = WebhookVerifier(JWKS_URL, secrets=SECRET, client=sender.client, clock=clock)
    assert (await verifier.verify({**sender.webhook(), **sender.standard(versions="v1")}, BODY)).user_id == "user"
    sender.signer = make_signer()  # its keys are unknown; the secret is the same, so the key set is not fetched
    clock.now += 60
    at = int(clock.now)
    assert (await verifier.verify({**sender.webhook(at), **sender.standard(at, versions="v1")}, BODY)).user_id == ""
    assert sender.fetches == 1
    sender.response = httpx.ConnectError("down")
    clock.now += 86400
    at = int(clock.now)
    await verifier.verify(sender.standard(at, versions="v1"), BODY)
    with pytest.raises(KeysUnavailable):
        await verifier.verify(sender.webhook(at), BODY)
    sender.response = None
    clock.now += 2
    with pytest.raises(VerificationError, match=r"none of the keys of https://.* or the secrets, or"):
        await verifier.verify({**sender.webhook(at), "x-fal-webhook-signature": "00" * 64}, BODY)


# --- the user


async def test_only_webhooks_of_the_expected_user(sender, clock):
    """Any user of fal can make it send a validly signed webhook to any URL."""
    verifier = WebhookVerifier(user_id="user", client=sender.client, clock=clock)
    assert (await verifier.verify({**sender.webhook(), **sender.standard()}, BODY)).user_id == "user"
    with pytest.raises(VerificationError, match="another user's"):
        await verifier.verify(sender.webhook(user="other"), BODY)
    with pytest.raises(VerificationError, match="x-fal-webhook-request-id is missing"):
        await verifier.verify(sender.standard(), BODY)


def test_a_user_id_needs_a_key_set():
    with pytest.raises(ValueError, match="jwks_url"):
        WebhookVerifier(secrets=SECRET, user_id="user")


@pytest.mark.parametrize(
    ("body", "request_id"),
    [
        (b'{"request_id": "r"}', "r"),
        (b'{"request_id": null}', "id_1"),
        (b'{"request_id": 7}', "id_1"),
        (b"[]", "id_1"),
        (b"\xff", "id_1"),
    ],
)
def test_the_request_id_of_a_standard_webhook_is_in_its_body(sender, clock, body, request_id):
    webhook = WebhookVerifier(secrets=SECRET, clock=clock).verify_sync(sender.standard(body=body), body)
    assert (webhook.request_id, webhook.webhook_id) == (request_id, "id_1")


# --- fal's own webhooks


def test_webhooks_of_fal_itself(sender, clock):
    """The key set is at the default URL. Only `x` is documented, and its padding is not known."""
    fetched: list[str] = []
    (key,) = sender.signer.ring.published(NOW)

    def rest_fal_ai(request: httpx.Request) -> httpx.Response:
        fetched.append(str(request.url))
        return httpx.Response(200, json={"keys": [{"kty": "OKP", "crv": "Ed25519", "x": key.jwk(padded=True)["x"]}]})

    client = httpx.Client(transport=httpx.MockTransport(rest_fal_ai))
    webhook = WebhookVerifier(user_id="user", sync_client=client, clock=clock).verify_sync(sender.webhook(), BODY)
    assert (webhook.request_id, fetched) == ("id", [FAL_JWKS_URL])


@pytest.mark.parametrize("way", ["async", "sync"])
async def test_a_process_without_free_files_raises_keys_unavailable(sender, clock, monkeypatch, way):
    def lacks(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    verifier, headers = WebhookVerifier(JWKS_URL, clock=clock), sender.webhook()
    monkeypatch.setattr(httpx, "AsyncClient" if way == "async" else "get", lacks)
    with pytest.raises(KeysUnavailable, match="Too many open files"):
        await verifier.verify(headers, BODY) if way == "async" else verifier.verify_sync(headers, BODY)


def test_no_reason_repeats_a_secret_in_the_address_of_the_keys(sender, clock):
    url = JWKS_URL.replace("://", "://alice:s3cret@") + "?token=t0ken"
    reasons = []
    for status in (200, 500):
        transport = httpx.MockTransport(lambda request, status=status: httpx.Response(status, json=sender.signer.jwks()))
        verifier = WebhookVerifier(url, sync_client=httpx.Client(transport=transport), clock=clock)
        with pytest.raises(VerificationError) as refusal:
            verifier.verify_sync(sender.webhook(), BODY + b" ")
        reasons.append(str(refusal.value))
    assert all(JWKS_URL in reason for reason in reasons), reasons
    assert not any(secret in reason for reason in reasons for secret in ("s3cret", "t0ken", "alice"))
