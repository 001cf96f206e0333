import base64
import hashlib
import hmac

import pytest
from nacl.signing import VerifyKey

from queue_middleware.errors import SettingsError
from queue_middleware.secret_parsers import parse_webhook_secrets
from queue_middleware.webhooks.signing.keys import KeyPair, SharedSecret, parse_shared_secrets

SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"  # RFC 8032 §7.1, test 1


def test_signs_like_rfc_8032():
    key = KeyPair.from_hex(SEED)
    assert key.public.hex() == PUBLIC
    assert key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


def test_key_id_is_the_thumbprint_of_rfc_8037():
    assert KeyPair.from_hex(SEED).kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"  # appendix A.3


def test_the_public_half_as_a_web_key():
    key = KeyPair.from_hex(SEED.upper())
    assert key.jwk(padded=False) == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "use": "sig",
        "alg": "EdDSA",
        "kid": key.kid,
    }
    assert base64.urlsafe_b64decode(key.jwk(padded=True)["x"]).hex() == PUBLIC


def test_new_keys_differ_and_can_be_serialized():
    first, second = KeyPair.generate(), KeyPair.generate()
    assert first.kid != second.kid
    again = KeyPair.from_hex(first.seed_hex())
    VerifyKey(first.public).verify(b"message", again.sign(b"message"))


def test_the_repr_does_not_show_the_private_key():
    key = KeyPair.generate()
    assert key.seed_hex() not in f"{key!r} {key}"


@pytest.mark.parametrize("text", ["", "abc", SEED[:-1], SEED + "0", "g" + SEED[1:], f" {SEED}", SEED + "\n", "٣" * 64])
def test_a_malformed_seed_is_refused_and_not_repeated(text):
    with pytest.raises(SettingsError, match="64 hex digits") as caught:
        KeyPair.from_hex(text)
    assert SEED[:10] not in caught.value.detail


@pytest.mark.parametrize("message", [b"", b"a", b"x" * 1000, bytes(range(256)) * 40], ids=len)
def test_a_message_in_chunks_has_the_same_signature(message):
    for key in (KeyPair.from_hex(SEED), *(KeyPair.generate() for _ in range(20))):
        signature = key.start_long()
        for start in range(0, len(message), 99):
            signature.update_first(message[start : start + 99])
        signature.end_first()
        for start in range(0, len(message), 100):
            signature.update_second(message[start : start + 100])
        assert signature.digest() == key.sign(message)
        VerifyKey(key.public).verify(message, signature.digest())


def test_a_message_that_changes_between_the_readings_is_not_signed():
    signature = KeyPair.generate().start_long()
    signature.update_first(b"one")
    signature.end_first()
    signature.update_second(b"two")
    with pytest.raises(ValueError, match="changed while it was being signed"):
        signature.digest()


FIRST = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the specification's example
SECOND = "whsec_" + base64.b64encode(bytes(range(64))).decode()


def test_the_mac_of_the_specifications_example():
    message = b'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}'
    code = SharedSecret.parse(FIRST).sign(message)
    assert base64.b64encode(code) == b"g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert code == hmac.digest(base64.b64decode(FIRST[6:]), message, hashlib.sha256)


def test_a_mac_is_found_among_others():
    secret = SharedSecret.parse(FIRST)
    right, wrong = secret.sign(b"message"), SharedSecret.parse(SECOND).sign(b"message")
    assert secret.verify(b"message", [wrong, right])
    for codes in ([], [wrong], [right[:-1]], [right + b"\0"], [b""]):
        assert not secret.verify(b"message", codes)
    assert not secret.verify(b"massage", [right])


@pytest.mark.parametrize(
    "value", [f"{FIRST},{SECOND}", f"{FIRST} {SECOND}", f" {FIRST} ,\n{SECOND},", [FIRST, SECOND], (FIRST, SECOND)]
)
def test_several_secrets(value):
    assert parse_webhook_secrets(value) == (FIRST, SECOND)
    assert [secret.sign(b"") for secret in parse_shared_secrets(value)] == [
        SharedSecret.parse(FIRST).sign(b""),
        SharedSecret.parse(SECOND).sign(b""),
    ]


def test_no_secrets():
    assert parse_shared_secrets("") == parse_shared_secrets(()) == ()


@pytest.mark.parametrize(
    "text",
    [
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa==",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSä",
        "whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
    ],
)
def test_a_malformed_secret_is_refused_and_not_repeated(text):
    with pytest.raises(SettingsError, match=r"openssl rand -base64 32") as caught:
        parse_webhook_secrets([text])
    assert "MfKQ9r8GKY" not in caught.value.detail


@pytest.mark.parametrize("value", [1, None])
def test_a_value_that_is_not_a_list_is_refused(value):
    with pytest.raises(SettingsError, match="not a list of webhook secrets"):
        parse_webhook_secrets(value)


def test_the_repr_does_not_show_the_secret():
    secret = SharedSecret.parse(FIRST)
    assert "MfKQ" not in f"{secret!r} {secret}"
