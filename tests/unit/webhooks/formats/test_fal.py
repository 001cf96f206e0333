import hashlib
import json

import pytest

from queue_middleware.jobs.models import ErrorType, Failure, JobResult, JobState, StoredResponse, WebhookKind
from queue_middleware.webhooks.formats.fal import (
    NOT_JSON,
    event_body,
    oversized_body,
    signed_message,
    split_body,
    webhook_body,
    webhook_headers,
)
from queue_middleware.webhooks.models import receiver_host
from tests.support.factories import make_job_view

ID = "018f3b1e-0000-7000-8000-000000000001"
JSON = ((b"content-type", b"application/json"),)


def result_of(body, status=200, headers=JSON):
    return JobResult(job(JobState.COMPLETED, status=status), StoredResponse(status, headers, body))


def failed(failure, state=JobState.FAILED):
    return JobResult(job(state, failure=failure), None)


def job(state, status=None, failure=None):
    return make_job_view(state, request_id=ID, status=status, failure=failure)


def test_a_success_has_fals_bytes():
    assert webhook_body(result_of(b'{"seed": 1}')).decode() == (
        f'{{"error": null, "gateway_request_id": "{ID}", "payload": {{"seed": 1}}, "request_id": "{ID}", "status": "OK"}}'
    )


def test_an_error_of_the_application_has_fals_bytes():
    assert webhook_body(result_of(b'{"detail":"Not found"}', 404)).decode() == (
        f'{{"error": "Invalid status code: 404", "gateway_request_id": "{ID}", "payload": {{"detail":"Not found"}}, '
        f'"request_id": "{ID}", "status": "ERROR"}}'
    )


@pytest.mark.parametrize(
    ("status", "expected"), [(200, "OK"), (201, "OK"), (299, "OK"), (302, "ERROR"), (422, "ERROR"), (500, "ERROR")]
)
def test_every_2xx_is_ok(status, expected):
    sent = json.loads(webhook_body(result_of(b"{}", status)))
    assert sent["status"] == expected
    assert sent["error"] == (None if expected == "OK" else f"Invalid status code: {status}")


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
def test_the_applications_json_is_included_byte_for_byte(body):
    assert b'"payload": ' + body + b', "request_id"' in webhook_body(result_of(body))


@pytest.mark.parametrize(
    "type_", [b"application/json", b"Application/JSON; charset=utf-8", b"application/problem+json", b"text/json"]
)
def test_json_media_types(type_):
    assert json.loads(webhook_body(result_of(b"[1]", headers=((b"content-type", type_),))))["payload"] == [1]


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
        (b'"\xff"', JSON),
        (b'{"\xe2\x28": 1}', JSON),
        ('{"ä": 1}'.encode("latin-1"), JSON),
        ("{}".encode("utf-16"), JSON),
        (b"[" * 100_000 + b"]" * 100_000, JSON),
        (b'{"a": "\x00"}', JSON),
    ],
)
def test_other_bodies_are_not_included(body, headers):
    sent = json.loads(webhook_body(result_of(body, headers=headers)))
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
    sent = json.loads(webhook_body(result_of(b"Oops", 500, ((b"content-type", b"text/plain"),))))
    assert (sent["status"], sent["error"], sent["payload"]) == ("ERROR", "Invalid status code: 500", None)


@pytest.mark.parametrize(
    ("kind", "error", "expected"),
    [
        (ErrorType.REQUEST_TIMEOUT, "Invalid status code: 504", "request_timeout"),
        (ErrorType.START_TIMEOUT, "Invalid status code: 504", "request_timeout"),
        (ErrorType.RUNNER_DISCONNECTED, "Invalid status code: 503", "runner_disconnected"),
        (ErrorType.RUNNER_SERVER_ERROR, "Invalid status code: 500", "runner_server_error"),
    ],
)
def test_a_failure_of_the_platform(kind, error, expected):
    sent = json.loads(webhook_body(failed(Failure(kind, "why"))))
    assert (sent["status"], sent["error"]) == ("ERROR", error)
    assert sent["payload"] == {"detail": "why", "error_type": expected}


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


def test_the_frame_around_the_payload_is_the_same_bytes():
    result = result_of(b'{"seed": 1}')
    before, payload, after = split_body(result)
    assert payload is result.response.body
    assert before + payload + after == webhook_body(result)


@pytest.mark.parametrize(("status", "expected"), [(200, "OK"), (500, "ERROR")])
def test_an_oversized_response_is_replaced_by_its_url(status, expected):
    result = result_of(b'{"seed": 1}', status)
    sent = json.loads(oversized_body(result, 10, "https://s.example/fal/queue/requests/1/response"))
    assert sent["payload"] is None
    assert sent["payload_error"] == (
        "Response payload has 11 bytes, more than 10. Fetch it from https://s.example/fal/queue/requests/1/response"
    )
    assert (sent["status"], sent["error"]) == (expected, None if expected == "OK" else "Invalid status code: 500")
    assert list(sent) == sorted(sent)


def test_events_have_the_keys_of_fal_and_more():
    sent = event_body(WebhookKind.PROGRESS, ID, f"{ID}_2", {"at": 1800000000123, "fraction": 0.5, "stage": "hälf"})
    assert sent.decode("ascii") == (
        f'{{"error": null, "gateway_request_id": "{ID}", "payload": null, '
        f'"progress": {{"fraction": 0.5, "stage": "h\\u00e4lf"}}, "request_id": "{ID}", "status": "IN_PROGRESS", '
        f'"timestamp": "2027-01-15T08:00:00.123Z", "type": "request.progress", "webhook_id": "{ID}_2"}}'
    )
    assert "progress" not in json.loads(event_body(WebhookKind.STARTED, ID, f"{ID}_1", {"at": 0}))


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Example.COM/Hook?a=b", "example.com"),
        ("https://example.com.", "example.com"),
        ("https://example.com:443/", "example.com"),
        ("https://example.com:/", "example.com"),
        ("http://example.com:443/", "example.com:443"),
        ("http://example.com:80", "example.com"),
        ("https://example.com:8443/x:y", "example.com:8443"),
        ("https://[2606:4700::1111]:8443/", "[2606:4700::1111]:8443"),
        ("https://[2606:4700::1111]", "[2606:4700::1111]"),
        ("HTTPS://example.com?x", "example.com"),
        ("https://user:expected@example.com/", "example.com"),
        ("what is this", "what is this"),
    ],
)
def test_the_name_of_a_receiver(url, host):
    assert receiver_host(url) == host


@pytest.mark.parametrize(
    ("body", "included"),
    [
        (b"\xef\xbb\xbf{}", b"{}"),
        (b'{"a": 1e400}', b'{"a": 1e400}'),
        (b"1" * 5000, b"1" * 5000),
        (b'["\\ud800"]', b'["\\ud800"]'),
    ],
)
def test_all_json_is_included(body, included):
    assert b'"payload": ' + included + b', "request_id"' in webhook_body(result_of(body, headers=JSON))
