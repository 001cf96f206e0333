"""How responses to polls, and callbacks, are read."""

import json

import pytest

from queue_middleware.jobs.models import StoredResponse
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.tasks.polling.config import LOCATION_POLLING
from queue_middleware.tasks.polling.providers import PROVIDERS
from queue_middleware.tasks.polling.response import (
    Failed,
    FetchResult,
    PollError,
    PollUrls,
    Redirected,
    Running,
    Succeeded,
    poll_urls,
    read_callback,
    read_result,
    read_status,
)
from queue_middleware.tasks.polling.templates import StartResponse, TemplateError

URL = "https://api.example/status/1"
HERE = PollUrls(URL, None)
CONFIG = PollConfig("/status/{startResult.body.id}", "status", ("done",), ("broken",), error_path="why")
REPLICATE, FAL, RUNWAY, STABILITY = (PROVIDERS[name].poll for name in ("replicate", "fal", "runwayml", "stability-video"))


def response(body=b"", status=200, *headers) -> StoredResponse:
    return StoredResponse(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def status_of(config, body, status=200, failures=0, *headers):
    return read_status(config, HERE, URL, response(body, status, *headers), failures)


# --- responses to polls


@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [
        ({"status": "busy"}, 200, Running("busy")),
        ({"status": "busy"}, 202, Running("busy")),
        ({"status": 3}, 200, Running("3")),
        ({}, 200, Running()),
        ({"status": None}, 200, Running()),
        (b"no json", 200, Running()),
        (b"", 204, Running()),
        ({"status": "DONE"}, 200, "done"),
        ({"status": "done"}, 202, "done"),
        ({"status": "broken", "why": "out of paint"}, 200, Failed("out of paint")),
        ({"status": "broken", "why": {"code": 7}}, 200, Failed('{"code":7}')),
        ({"status": "broken", "why": None, "detail": "no paint"}, 200, Failed("no paint")),
        ({"status": "Broken"}, 200, Failed("the provider reports status Broken")),
        ({"status": "broken", "why": "x" * 600}, 200, Failed("x" * 499 + "…")),
    ],
)
def test_statuses(body, status, outcome):
    expected = Succeeded(response(body, status)) if outcome == "done" else outcome
    assert status_of(CONFIG, body, status) == expected


@pytest.mark.parametrize(
    ("status", "failures", "final"),
    [
        (500, 0, False),
        (503, 99, False),
        (408, 99, False),
        (425, 99, False),
        (429, 99, False),
        (404, 0, False),  # a new job may not be visible everywhere yet
        (404, 1, False),
        (404, 2, True),
        (400, 0, True),
        (401, 0, True),
        (403, 0, True),
        (410, 0, True),
        (304, 0, True),
    ],
)
def test_a_poll_that_is_refused(status, failures, final):
    outcome = status_of(CONFIG, {"error": {"message": "because"}}, status, failures)
    text = f"the status request returned {status}"
    assert outcome == (Failed(f"{text}: because") if final else PollError(text, "because"))


def test_redirects():
    def redirected(status, location=b"/elsewhere"):
        return status_of(CONFIG, b"", status, 0, (b"location", location))

    for status in (301, 302, 307, 308):
        assert redirected(status) == Redirected("https://api.example/elsewhere")
    assert redirected(303) == FetchResult("https://api.example/elsewhere")
    assert redirected(303, b"https://cdn.example/x") == FetchResult("https://cdn.example/x")
    assert isinstance(redirected(302, b"https://[bad"), Failed)
    assert read_result(URL, response(b"", 302, (b"location", b"/cdn")), 0) == FetchResult("https://api.example/cdn")
    assert read_result(URL, response(b"", 303, (b"location", b"/cdn")), 0) == FetchResult("https://api.example/cdn")


@pytest.mark.parametrize(
    ("output", "kind", "body"),
    [
        ("https://cdn.example/a.png", b"text/plain; charset=utf-8", b"https://cdn.example/a.png"),
        (["a", "b"], b"application/json", b'["a","b"]'),
        (None, b"application/json", b"null"),
        ({"ä": 1.5}, b"application/json", '{"ä":1.5}'.encode()),
        ("", b"text/plain; charset=utf-8", b""),
    ],
)
def test_the_result_is_the_part_at_its_path(output, kind, body):
    outcome = status_of(REPLICATE, {"status": "succeeded", "output": output})
    assert outcome == Succeeded(StoredResponse(200, ((b"content-type", kind),), body))


def test_without_that_part_the_result_is_the_whole_response():
    assert status_of(REPLICATE, {"status": "succeeded", "id": "x"}) == Succeeded(response({"status": "succeeded", "id": "x"}))


def test_progress():
    assert status_of(RUNWAY, {"status": "RUNNING", "progress": 0.25}) == Running("RUNNING", 0.25)
    assert status_of(RUNWAY, {"status": "RUNNING", "progress": 1}) == Running("RUNNING", 1.0)
    for odd in (True, 1.5, -1, "0.5", None):
        assert status_of(RUNWAY, {"status": "RUNNING", "progress": odd}) == Running("RUNNING")


def test_the_result_may_have_its_own_url():
    urls = poll_urls(
        FAL, StartResponse(URL, 200, (), b'{"status_url": "https://q.example/s", "response_url": "https://q.example/r"}')
    )
    assert urls == PollUrls("https://q.example/s", "https://q.example/r")
    assert read_status(FAL, urls, URL, response({"status": "COMPLETED"}), 0) == FetchResult("https://q.example/r")
    assert read_status(FAL, urls, URL, response({"status": "IN_QUEUE"}, 202), 0) == Running("IN_QUEUE")
    with pytest.raises(TemplateError, match="response_url"):
        poll_urls(FAL, StartResponse(URL, 200, (), b'{"status_url": "https://q.example/s"}'))


@pytest.mark.parametrize(
    ("status", "failures", "final"),
    [
        (422, 0, True),
        (400, 0, True),
        (404, 0, True),
        (500, 0, False),
        (503, 1, False),
        (500, 2, True),
        (504, 2, True),
        (429, 9, False),
    ],
)
def test_a_result_without_2xx_is_a_failure(status, failures, final):
    text = f"the result request returned {status}"
    expected = Failed(f"{text}: no prompt") if final else PollError(text, "no prompt")
    assert read_result(URL, response({"detail": "no prompt"}, status), failures) == expected


def test_a_result_may_have_any_form():
    assert read_result(URL, response(b"\x89PNG", 200, (b"content-type", b"image/png")), 0) == Succeeded(
        StoredResponse(200, ((b"content-type", b"image/png"),), b"\x89PNG")
    )
    assert read_result(URL, response([{"loc": ["body"], "msg": "x"}], 201), 0) == Succeeded(
        response([{"loc": ["body"], "msg": "x"}], 201)
    )
    assert isinstance(read_result(URL, response(b"", 202), 0), PollError)


def test_the_http_status_may_be_the_status():
    assert status_of(STABILITY, {"id": "x", "status": "in-progress"}, 202) == Running("202")
    done = {"video": "AAAA", "finish_reason": "SUCCESS", "seed": 1}
    assert status_of(STABILITY, done) == Succeeded(response(done))
    errors = {"id": "x", "name": "content_moderation", "errors": ["flagged"]}
    assert status_of(STABILITY, errors, 403) == Failed('the status request returned 403: ["flagged"]')


# --- 202 with Location


def test_the_url_of_a_location():
    assert (
        poll_urls(LOCATION_POLLING, StartResponse(URL, 202, ((b"location", b"../jobs/1"),), b"")).url
        == "https://api.example/jobs/1"
    )


@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [
        (b"", 202, Running()),
        ({"status": "Succeeded"}, 202, Running("Succeeded")),
        ({"status": "Running"}, 200, Running("Running")),
        ({"status": "InProgress"}, 200, Running("InProgress")),
        ({"status": "queued"}, 200, Running("queued")),
        ({"status": "Failed", "error": {"message": "no"}}, 200, Failed('{"message":"no"}')),
        ({"status": "cancelled"}, 200, Failed("the provider reports status cancelled")),
        ({"status": "Succeeded"}, 200, "done"),
        ({"status": "shipped"}, 200, "done"),
        ({"rows": 3}, 200, "done"),
        (b"a,b\r\n1,2", 200, "done"),
        (b"", 204, "done"),
    ],
)
def test_a_location_needs_no_configuration(body, status, outcome):
    expected = Succeeded(response(body, status)) if outcome == "done" else outcome
    assert status_of(LOCATION_POLLING, body, status) == expected


# --- callbacks


def called(payload, config=None, target=None):
    return read_callback(payload, config, target)


OF_REPLICATE = {"id": "p", "input": {"text": "x"}, "created_at": "2025-01-01T00:00:00Z", "logs": "", "error": None}


def test_any_payload_of_an_unknown_service_is_the_result():
    for payload in ({}, [], "text", 3, None, {"status": "processing"}, {"status": "rejected"}, {"state": {"failed": 1}}):
        assert called(payload) is None


def test_a_failure_payload_is_a_failure():
    failed = {"request_id": "1", "status": "ERROR", "error": "Invalid status code: 422", "payload": {"detail": "no prompt"}}
    assert called(failed) == Failed("Invalid status code: 422")
    assert called({**OF_REPLICATE, "status": "failed", "error": "out of memory"}) == Failed("out of memory")
    assert called({**OF_REPLICATE, "status": "canceled"}) == Failed("the provider reports status canceled")
    assert called({"id": "g", "state": "failed", "created_at": "2025", "failure_reason": "moderated"}) == Failed("moderated")
    assert called({"status": "FAILED", "failure": "no"}, RUNWAY) == Failed("no")
    # of unknown services too, if the payload has a common name for a failure
    assert called({"status": "Failed", "reason": "out of paint"}) == Failed("out of paint")
    assert called({"state": "error"}) == Failed("the provider reports status error")
    assert called({"state": "cancelled"}, CONFIG) == Failed("the provider reports status cancelled")


def test_only_the_last_of_several_events_is_final():
    for status in ("starting", "processing"):
        assert called({**OF_REPLICATE, "status": status}) == Running(status)
    last = {**OF_REPLICATE, "status": "succeeded", "output": ["https://x"]}
    assert called(last) is None
    assert called({"id": "g", "state": "dreaming", "created_at": "2025"}) == Running("dreaming")


def test_precedence_is_configuration_then_host_then_payload():
    payload = {**OF_REPLICATE, "status": "failed"}
    assert called(payload, PollConfig("/x", "status", ("failed",), ("succeeded",))) is None
    assert called({"status": "FAILED"}, None, "https://api.dev.runwayml.com/v1/image_to_video") == Failed(
        "the provider reports status FAILED"
    )
    assert called({"status": "waiting"}, CONFIG) == Running("waiting")


def test_a_payload_without_a_status_is_final():
    assert called({"output": 1}, CONFIG) is None
    assert called({"output": 1}, None, "https://queue.fal.run/fal-ai/x") is None
    assert called({"status": "x"}, STABILITY) is None
    assert called({"status": "anything"}, LOCATION_POLLING) is None
    assert called({"status": "running"}, LOCATION_POLLING) == Running("running")
