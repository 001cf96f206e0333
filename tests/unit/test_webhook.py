import hashlib
import json

import pytest

from queue_middleware.models import ErrorType, Failure, Job, JobState, Result, StoredResponse
from queue_middleware.wire.webhook import NOT_JSON, signed_message, webhook_body, webhook_headers

ID = "018f3b1e-0000-7000-8000-000000000001"
JSON = ((b"content-type", b"application/json"),)


def answered(body, status=200, headers=JSON):
    return Result(job(JobState.COMPLETED, status=status), StoredResponse(status, headers, body))


def failed(failure, state=JobState.FAILED):
    return Result(job(state, failure=failure), None)


def job(state, status=None, failure=None):
    return Job(1, ID, state, 1, None, None, 0, 0, 0, status, failure)


def test_a_success_has_fals_bytes():
    assert webhook_body(answered(b'{"seed": 1}')).decode() == (
        f'{{"error": null, "gateway_request_id": "{ID}", "payload": {{"seed": 1}}, "request_id": "{ID}", "status": "OK"}}'
    )


def test_an_error_of_the_application_has_fals_bytes():
    assert webhook_body(answered(b'{"detail":"Not found"}', 404)).decode() == (
        f'{{"error": "Invalid status code: 404", "gateway_request_id": "{ID}", "payload": {{"detail":"Not found"}}, '
        f'"request_id": "{ID}", "status": "ERROR"}}'
    )


@pytest.mark.parametrize(
    ("status", "word"), [(200, "OK"), (201, "OK"), (299, "OK"), (302, "ERROR"), (422, "ERROR"), (500, "ERROR")]
)
def test_every_2xx_is_ok(status, word):
    sent = json.loads(webhook_body(answered(b"{}", status)))
    assert sent["status"] == word
    assert sent["error"] == (None if word == "OK" else f"Invalid status code: {status}")


@pytest.mark.parametrize(
    "body",
    [
        b'{"b":1,"a":1.0}',
        b" [ 1 ]\n",
        b"0.10e-0005",
        b'"\xc3\xa4\\u00e4"',
        b'{"a":1,"a":2}',
        b"12345678901234567890123",
        b"null",
    ],
)
def test_the_applications_json_is_carried_byte_for_byte(body):
    assert b'"payload": ' + body + b', "request_id"' in webhook_body(answered(body))


@pytest.mark.parametrize(
    "type_", [b"application/json", b"Application/JSON; charset=utf-8", b"application/problem+json", b"text/json"]
)
def test_json_media_types(type_):
    assert json.loads(webhook_body(answered(b"[1]", headers=((b"content-type", type_),))))["payload"] == [1]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", JSON),
        (b"", ()),
        (b"{}", ()),
        (b"{}", ((b"content-type", b"text/plain"),)),
        (b"{}", ((b"content-type", b"application/jsonp"),)),
        (b"{", JSON),
        (b'{}, "status": "OK"', JSON),
        (b"[1,]", JSON),
        (b"NaN", JSON),
        (b"\xef\xbb\xbf{}", JSON),
        (b'"\xff"', JSON),
        (b'{"\xe2\x28": 1}', JSON),
        ('{"ä": 1}'.encode("latin-1"), JSON),
        ("{}".encode("utf-16"), JSON),
        (b"[" * 100_000 + b"]" * 100_000, JSON),
        (b'{"a": "\x00"}', JSON),
    ],
)
def test_anything_else_is_named_not_carried(body, headers):
    sent = json.loads(webhook_body(answered(body, headers=headers)))
    assert sent == {
        "error": None,
        "gateway_request_id": ID,
        "payload": None,
        "payload_error": NOT_JSON,
        "request_id": ID,
        "status": "OK",
    }
    assert list(sent) == sorted(sent)


def test_an_error_page_stays_an_error():
    sent = json.loads(webhook_body(answered(b"Oops", 500, ((b"content-type", b"text/plain"),))))
    assert (sent["status"], sent["error"], sent["payload"]) == ("ERROR", "Invalid status code: 500", None)


@pytest.mark.parametrize(
    ("kind", "error", "word"),
    [
        (ErrorType.REQUEST_TIMEOUT, "Invalid status code: 504", "request_timeout"),
        (ErrorType.START_TIMEOUT, "Invalid status code: 504", "request_timeout"),
        (ErrorType.RUNNER_DISCONNECTED, "Invalid status code: 503", "runner_disconnected"),
        (ErrorType.RUNNER_SERVER_ERROR, "Invalid status code: 500", "runner_server_error"),
    ],
)
def test_a_failure_of_the_platform(kind, error, word):
    sent = json.loads(webhook_body(failed(Failure(kind, "why"))))
    assert (sent["status"], sent["error"]) == ("ERROR", error)
    assert sent["payload"] == {"detail": "why", "error_type": word}


@pytest.mark.parametrize("failure", [None, Failure(ErrorType.CLIENT_CANCELLED, "Request was cancelled")])
def test_a_cancelled_request(failure):
    sent = json.loads(webhook_body(failed(failure, JobState.CANCELLED)))
    assert (sent["status"], sent["error"]) == ("ERROR", "Request was cancelled")
    assert sent["payload"] == {"detail": "Request was cancelled", "error_type": "client_cancelled"}


def test_a_job_without_an_end_is_not_announced():
    with pytest.raises(ValueError, match=ID):
        webhook_body(failed(None))


def test_the_signed_message_is_four_lines():
    digest = hashlib.sha256(b"body").hexdigest()
    assert signed_message("id", "user", "1700000000", b"body") == f"id\nuser\n1700000000\n{digest}".encode()


def test_the_headers():
    assert webhook_headers("id", "user", "1700000000", b"\x0a" * 64) == (
        (b"x-fal-webhook-request-id", b"id"),
        (b"x-fal-webhook-user-id", b"user"),
        (b"x-fal-webhook-timestamp", b"1700000000"),
        (b"x-fal-webhook-signature", b"0a" * 64),
    )
