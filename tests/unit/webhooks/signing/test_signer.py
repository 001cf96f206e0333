import json

import pytest
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from queue_middleware.webhooks.signing.keyring import KEPT, LEAD_TIME, KeyRing
from queue_middleware.webhooks.signing.keys import KeyPair, SharedSecret
from queue_middleware.webhooks.signing.signer import Signer
from tests.support.clock import Seconds

NOW = 1_800_000_000.0


def by(pair: KeyPair, signature: bytes) -> bool:
    try:
        VerifyKey(pair.public).verify(b"message", signature)
    except BadSignatureError:
        return False
    return True


def published(signer: Signer) -> set[str]:
    return {entry["kid"] for entry in signer.jwks()["keys"]}


def test_a_rotation_from_start_to_end():
    first, second, clock = KeyPair.generate(), KeyPair.generate(), Seconds(NOW)
    signer = Signer(KeyRing.of(first), clock=clock)
    assert by(first, signer.sign(b"message"))
    signer.ring = signer.ring.rotated(second, clock.now)
    seen = []
    for hours in (0, 24.9, 25, 72.9, 73):
        clock.now = NOW + hours * 3600
        each = [["first", "second"][by(second, signature)] for signature in signer.sign_all(b"message")]
        seen.append(("second" if by(second, signer.sign(b"message")) else "first", each, sorted(published(signer))))
    both, last = sorted((first.kid, second.kid)), [second.kid]
    assert seen == [
        ("first", ["first"], both),
        ("first", ["first"], both),
        ("second", ["second", "first"], both),
        ("second", ["second", "first"], both),
        ("second", ["second"], last),
    ]
    assert (LEAD_TIME, KEPT) == (25 * 3600, 48 * 3600)


def test_a_new_key_ring_is_used_at_once():
    first, second, clock = KeyPair.generate(), KeyPair.generate(), Seconds(NOW)
    signer = Signer(KeyRing.of(first), clock=clock)
    assert signer.active.kid == first.kid
    signer.ring = KeyRing.of(second)
    assert (signer.active.kid, published(signer)) == (second.kid, {second.kid})


def test_a_clock_that_is_set_back_brings_the_old_key_back():
    first, second, clock = KeyPair.generate(), KeyPair.generate(), Seconds(NOW)
    signer = Signer(KeyRing.of(first).rotated(second, NOW), clock=clock)
    clock.now += LEAD_TIME
    assert signer.active.kid == second.kid
    clock.now -= 1
    assert signer.active.kid == first.kid


def test_macs_by_each_secret():
    secrets = [SharedSecret(bytes([number]) * 32) for number in (1, 2)]
    signer = Signer(KeyRing.of(KeyPair.generate()), secrets)
    assert signer.macs(b"message") == [secret.sign(b"message") for secret in secrets]
    assert Signer(KeyRing.of(KeyPair.generate())).macs(b"message") == []


@pytest.mark.parametrize("render", [repr, str, lambda signer: json.dumps(signer.jwks())])
def test_nothing_private_is_shown(render):
    key = KeyPair.generate()
    text = render(Signer(KeyRing.of(key), [SharedSecret(b"a secret of 24 characters")]))
    assert key.seed_hex() not in text
    assert '"d"' not in text
    assert "a secret" not in text
