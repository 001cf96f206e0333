import json
import math

import httpx
import pytest

from queue_middleware.cli.webhook_check import Check, KeySource, Mark, WebhookChecker
from queue_middleware.errors import KeysUnavailable
from queue_middleware.webhooks.signing.keys import KeyPair
from tests.support.webhook_sender import BODY, JWKS_URL, NOW, SECRET, Sender

JSON_BODY = json.dumps({"error": None, "payload": {"a": 1.5, "b": [True]}, "request_id": "id"}, sort_keys=True).encode()


@pytest.fixture
def sender() -> Sender:
    return Sender()


def checker(sender: Sender, *, secrets: tuple[str, ...] = (), now: float = NOW, tolerance: float = 300) -> WebhookChecker:
    source = KeySource(JWKS_URL, sender.sync_client)
    return WebhookChecker([source], secrets, tolerance=tolerance, clock=lambda: now)


def wrong(check: Check) -> list[str]:
    return [finding.text for finding in check.findings if finding.mark is Mark.WRONG]


def texts(check: Check) -> str:
    return "\n".join(finding.text for finding in check.findings)


def both(sender: Sender, body: bytes = BODY) -> list[tuple[str, str]]:
    return [*sender.webhook(body=body).items(), *sender.standard(body=body).items()]


def test_a_valid_webhook_names_its_key_and_time(sender):
    check = checker(sender, now=NOW + 12, secrets=(SECRET,)).check(both(sender), BODY)
    assert check.error is None
    assert check.webhook is not None
    assert check.webhook.request_id == "id"
    assert check.signed_by == f"ed25519, key {sender.signer.active.kid}"
    assert wrong(check) == []
    assert texts(check).splitlines() == [
        f"the body has {len(BODY)} bytes of JSON",
        "fal's format: signed 12 s ago",
        f"fal's format: signed by ed25519, key {sender.signer.active.kid}",
        "Standard Webhooks: signed 12 s ago",
        f"Standard Webhooks: signed by ed25519, key {sender.signer.active.kid}",
        "Standard Webhooks: signed by hmac-sha256, secret 1",
    ]


def test_a_shared_secret_alone_is_enough_and_nothing_is_fetched(sender):
    check = WebhookChecker([], [SECRET], clock=lambda: NOW).check(list(sender.standard(versions="v1").items()), BODY)
    assert check.error is None
    assert check.signed_by == "hmac-sha256, secret 1"


@pytest.mark.parametrize("offset", [301, -301])
def test_an_old_webhook_is_refused_and_its_signature_is_still_explained(sender, offset):
    check = checker(sender, now=NOW + offset).check(both(sender), BODY)
    assert check.webhook is None
    assert check.error is not None
    assert "more than 300 s" in check.error.detail
    assert check.signed_by == ""
    assert f"signed by ed25519, key {sender.signer.active.kid}" in texts(check)
    assert checker(sender, now=NOW + offset, tolerance=302).check(both(sender), BODY).error is None


def test_a_missing_header_is_named(sender):
    headers = sender.webhook()
    del headers["x-fal-webhook-signature"]
    check = checker(sender).check(list(headers.items()), BODY)
    assert wrong(check) == ["fal's format: the header x-fal-webhook-signature is missing"]
    assert "Standard Webhooks: none of its headers is present" in texts(check)
    assert check.error is not None


def test_a_repeated_header_is_named(sender):
    check = checker(sender).check([*both(sender), ("Webhook-Id", "id_1")], BODY)
    assert wrong(check) == ["the header webhook-id is repeated"]


def test_another_key_is_not_valid(sender):
    other = Sender()
    check = checker(other).check(both(sender), BODY)
    assert len(wrong(check)) == 2
    assert "none of the 1 public keys" in wrong(check)[0]


def test_a_key_set_that_cannot_be_fetched_leaves_the_result_open(sender):
    sender.response = httpx.ConnectError("refused")
    check = checker(sender).check(both(sender), BODY)
    assert isinstance(check.error, KeysUnavailable)
    assert "no key or secret" in wrong(check)[0]


def test_a_second_source_is_tried(sender):
    other = KeyPair.generate()
    first = KeySource.in_hand("own", json.dumps({"keys": [other.jwk(padded=False)]}).encode())
    known = KeySource.in_hand("service", json.dumps(sender.signer.jwks()).encode())
    check = WebhookChecker([first, known], clock=lambda: NOW).check(both(sender), BODY)
    assert check.error is None
    assert check.signed_by == f"ed25519, key {sender.signer.active.kid}"


@pytest.mark.parametrize(
    ("recorded", "reason"),
    [
        (JSON_BODY + b"\n", "without the last line break"),
        (json.dumps(json.loads(JSON_BODY), indent=2).encode(), "parsed and written again"),
        (JSON_BODY.replace(b": ", b":"), "parsed and written again"),
    ],
)
def test_what_changed_the_body_is_found(sender, recorded, reason):
    check = checker(sender).check(both(sender, JSON_BODY), recorded)
    assert check.webhook is None
    assert reason in texts(check)


def test_a_forged_webhook_has_no_near_miss(sender):
    check = checker(sender).check(both(sender, JSON_BODY), JSON_BODY.replace(b"1.5", b"2.5"))
    assert "it is valid" not in texts(check)
    assert check.webhook is None


@pytest.mark.parametrize("body", [BODY, JSON_BODY, b"", b"{", b"\xff"])
@pytest.mark.parametrize("tolerance", [300, math.inf])
def test_the_verdict_is_that_of_the_findings(sender, body, tolerance):
    valid = checker(sender, tolerance=tolerance).check(both(sender, body), body)
    assert (valid.error, wrong(valid)) == (None, [])
    forged = checker(sender, tolerance=tolerance).check(both(sender, body), body + b"x")
    assert forged.error is not None
    assert wrong(forged) != []
