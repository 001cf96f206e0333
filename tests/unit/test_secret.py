import base64
import hashlib
import hmac

import pytest

from queue_middleware.errors import SettingsError
from queue_middleware.secret import Secret, parse_secrets, secret_words

FIRST = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the specification's example
SECOND = "whsec_" + base64.b64encode(bytes(range(64))).decode()


def test_the_code_of_the_specifications_example():
    message = b'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}'
    code = Secret.parse(FIRST).code(message)
    assert base64.b64encode(code) == b"g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert code == hmac.digest(base64.b64decode(FIRST[6:]), message, hashlib.sha256)


def test_a_code_is_accepted_among_others():
    secret = Secret.parse(FIRST)
    right, wrong = secret.code(b"message"), Secret.parse(SECOND).code(b"message")
    assert secret.accepts(b"message", [wrong, right])
    for codes in ([], [wrong], [right[:-1]], [right + b"\0"], [b""]):
        assert not secret.accepts(b"message", codes)
    assert not secret.accepts(b"massage", [right])


@pytest.mark.parametrize(
    "value", [f"{FIRST},{SECOND}", f"{FIRST} {SECOND}", f" {FIRST} ,\n{SECOND},", [FIRST, SECOND], (FIRST, SECOND)]
)
def test_several(value):
    assert secret_words(value) == (FIRST, SECOND)
    assert [secret.code(b"") for secret in parse_secrets(value)] == [
        Secret.parse(FIRST).code(b""),
        Secret.parse(SECOND).code(b""),
    ]


def test_none():
    assert parse_secrets("") == parse_secrets(()) == ()


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
        secret_words([text])
    assert "MfKQ9r8GKY" not in caught.value.detail


@pytest.mark.parametrize("value", [1, None])
def test_what_is_no_list_is_refused(value):
    with pytest.raises(SettingsError, match="no list of webhook secrets"):
        secret_words(value)


def test_its_text_does_not_tell_it():
    secret = Secret.parse(FIRST)
    assert "MfKQ" not in f"{secret!r} {secret}"
