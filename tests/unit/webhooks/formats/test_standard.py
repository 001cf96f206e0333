import base64
import hashlib
import hmac

from nacl.signing import VerifyKey

from queue_middleware.webhooks.formats.standard import parse_signatures, signed_message, webhook_headers
from queue_middleware.webhooks.signing.keys import KeyPair


def test_the_signed_message():
    assert signed_message("msg_1", "1700000000", b'{"a": "\xc3\xa4"}') == b'msg_1.1700000000.{"a": "\xc3\xa4"}'


def test_the_message_is_that_of_the_specifications_example():
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    message = signed_message("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    signature = base64.b64encode(hmac.digest(secret, message, hashlib.sha256))
    assert signature == b"g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_finds_its_signature():
    first, second = KeyPair.generate(), KeyPair.generate()
    message = signed_message("msg_1", "1700000000", b"body")
    headers = dict(webhook_headers("msg_1", "1700000000", [first.sign(message), second.sign(message)]))
    assert headers[b"webhook-id"] == b"msg_1"
    assert headers[b"webhook-timestamp"] == b"1700000000"
    versions = [part.split(b",") for part in headers[b"webhook-signature"].split(b" ")]
    assert [version for version, _ in versions] == [b"v1a", b"v1a"]
    VerifyKey(second.public).verify(message, base64.b64decode(versions[1][1]))


def test_signatures_of_both_kinds():
    headers = dict(webhook_headers("msg_1", "1700000000", [b"s" * 64, b"t" * 64], [b"c" * 32]))
    text = headers[b"webhook-signature"].decode()
    assert [item.partition(",")[0] for item in text.split(" ")] == ["v1a", "v1a", "v1"]
    assert parse_signatures(text) == ((b"s" * 64, b"t" * 64), (b"c" * 32,))


def test_other_versions_and_invalid_base64_are_skipped():
    assert parse_signatures("v2,AAAA v1a,AAAA v1a v1,!!! v1a,ää whatever v1,Y29kZQ==") == ((), (b"code",))
    assert parse_signatures("") == ((), ())
