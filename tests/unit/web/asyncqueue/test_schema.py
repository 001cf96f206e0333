import base64
import hashlib
import hmac
import json

import pytest

from queue_middleware.errors import BadRequest, MethodNotAllowed, UnknownRoute
from queue_middleware.jobs.models import ErrorType, Failure, JobState, StoredResponse
from queue_middleware.jobs.task_spec import Backoff
from queue_middleware.tasks import representation as wire
from queue_middleware.tasks.models import CompletionSource, TaskPage, TaskStatus
from queue_middleware.web.asyncqueue.routes import PUBLIC, TaskOperation, find_task_route
from queue_middleware.web.asyncqueue.schema import check_due, read_task
from tests.support.factories import make_task_record

T0 = 1_736_935_800_000


def test_a_task_with_only_a_target_has_defaults() -> None:
    call = read_task(b'{"targetUrl": "/work"}')
    assert (call.method, call.headers, call.body, call.timeout, call.wait) == ("POST", (), b"", 30.0, 30.0)
    assert (call.retries, call.backoff, call.priority, call.due_at) == (3, Backoff.EXPONENTIAL, 5, None)
    assert (call.on_complete, call.signal, call.provider, call.poll) == (None, False, None, None)


def test_a_body_is_json_by_default() -> None:
    assert read_task(b'{"targetUrl": "/", "body": "{}"}').headers == ((b"content-type", b"application/json"),)
    call = read_task(b'{"targetUrl": "/", "body": "a", "headers": {"Content-Type": "text/plain"}}')
    assert call.headers == ((b"content-type", b"text/plain"),)
    assert read_task(b'{"targetUrl": "/", "body": "{}", "method": "get"}').headers == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-15T10:10:00Z", T0),
        ("2025-01-15T10:10:00.000+00:00", T0),
        ("2025-01-15T11:10:00+01:00", T0),
        ("2025-01-15T10:10:00", T0),
        ("", None),
    ],
)
def test_times(text: str, expected: int | None) -> None:
    assert read_task(json.dumps({"targetUrl": "/", "delayUntil": text}).encode()).due_at == expected


def test_the_representation_of_a_task() -> None:
    assert json.loads(wire.task_body(make_task_record())) == {
        "task": {
            "id": "019d2b00-1234-7000-a000-000000000001",
            "status": "completed",
            "targetUrl": "/work",
            "method": "POST",
            "timeout": 30.0,
            "maxWaitTime": 30.0,
            "maxRetries": 3,
            "retryBackoff": "linear",
            "priority": 8,
            "waitForSignal": False,
            "retryCount": 1,
            "error": None,
            "createdAt": "2025-01-15T10:10:00.000Z",
            "startedAt": "2025-01-15T10:10:01.000Z",
            "completedAt": "2025-01-15T10:10:03.345Z",
            "result": {
                "statusCode": 200,
                "headers": {"content-type": "application/json", "x-a": "1, 2"},
                "body": '{"ok": true}',
                "duration": 2345,
            },
        }
    }


@pytest.mark.parametrize(
    ("channel", "duration"),
    [(CompletionSource.CALLBACK, 0), (CompletionSource.SIGNAL, 0), (CompletionSource.POLL, 2345), (None, 2345)],
)
def test_a_result_from_outside_has_no_duration(channel: CompletionSource | None, duration: int) -> None:
    result = wire.result_of(make_task_record(resolved_by=channel))
    assert result is not None
    assert result["duration"] == duration


def test_no_duration_is_negative_after_the_clock_was_set_back() -> None:
    record = make_task_record(resolved_by=None)
    result = wire.result_of(record.replace(job=record.job.replace(finished_at=0)))
    assert result is not None
    assert result["duration"] == 0


def test_bytes_that_are_not_text_are_base64() -> None:
    result = wire.result_of(make_task_record(response=StoredResponse(200, (), b"\xff\xfe")))
    assert result is not None
    assert (base64.b64decode(result["body"]), result["bodyEncoding"]) == (b"\xff\xfe", "base64")


def test_the_error_of_a_failed_task() -> None:
    job = make_task_record().job
    failed = make_task_record(status=TaskStatus.FAILED, job=job.replace(status=502))
    assert wire.error_of(failed) == "the target responded with 502"
    raised = job.replace(state=JobState.FAILED, status=None, failure=Failure(ErrorType.RUNNER_SERVER_ERROR, "it broke"))
    assert wire.error_of(make_task_record(status=TaskStatus.FAILED, job=raised)) == "it broke"
    assert wire.error_of(make_task_record()) is None


def test_the_body_for_the_completion_url() -> None:
    content = json.loads(wire.completion_body(make_task_record(status=TaskStatus.TIMEOUT, response=None)))
    assert content["event"] == "task.timeout"
    assert set(content["task"]) == {"id", "status", "result", "error", "retryCount", "createdAt", "completedAt"}
    content = json.loads(wire.completion_body(make_task_record(response=None), "Fetch the result from there"))
    assert (content["task"]["result"], content["task"]["resultError"]) == (None, "Fetch the result from there")


def test_the_signature_is_what_receivers_of_asyncqueue_compute() -> None:
    """As documented: HMAC-SHA256 with the secret as it is written, over timestamp, dot and body."""
    macs = wire.signature_macs(["whsec_b25l", "whsec_dHdv"], "1705312260")
    for mac in macs:
        mac.update(b'{"a": 1}')
    (header,) = wire.signature_header(macs, "1705312260")
    expected = [hmac.new(key, b'1705312260.{"a": 1}', hashlib.sha256).hexdigest() for key in (b"whsec_b25l", b"whsec_dHdv")]
    assert header == (b"x-asyncqueue-signature", f"t=1705312260,v1={expected[0]},v1={expected[1]}".encode())
    assert wire.signature_header([], "1705312260") == ()


def test_a_page_of_tasks() -> None:
    content = json.loads(wire.page_body(TaskPage([make_task_record()], 3), limit=1, offset=1))
    assert content["pagination"] == {"total": 3, "limit": 1, "offset": 1, "hasMore": True}
    assert "result" not in content["tasks"][0]
    assert not json.loads(wire.page_body(TaskPage([make_task_record()], 3), limit=1, offset=2))["pagination"]["hasMore"]


def test_only_the_creator_receives_the_secrets() -> None:
    content = json.loads(wire.created_body(make_task_record(), {"callbackId": "c", "callbackUrl": "u", "signalToken": "s"}))
    assert (content["task"]["callbackId"], content["callbackUrl"], content["signalToken"]) == ("c", "u", "s")
    assert "signalToken" not in content["task"]


@pytest.mark.parametrize(
    ("method", "path", "operation", "identifier"),
    [
        ("POST", "/tasks", TaskOperation.CREATE, ""),
        ("GET", "/tasks/", TaskOperation.LIST, ""),
        ("GET", "/tasks/7", TaskOperation.READ, "7"),
        ("HEAD", "/tasks/7", TaskOperation.READ, "7"),
        ("POST", "/tasks/7/cancel", TaskOperation.CANCEL, "7"),
        ("POST", "/callbacks/ff/", TaskOperation.CALLBACK, "ff"),
        ("POST", "/signals/ff", TaskOperation.SIGNAL, "ff"),
        ("GET", "/providers", TaskOperation.PROVIDERS, ""),
    ],
)
def test_routes(method: str, path: str, operation: TaskOperation, identifier: str) -> None:
    route = find_task_route(method, path)
    assert (route.operation, route.id) == (operation, identifier)


@pytest.mark.parametrize(
    "path", ["/", "", "/task", "/tasks/7/stop", "/tasks//cancel", "/callbacks", "/callbacks/a/b", "/signals/"]
)
def test_unknown_routes(path: str) -> None:
    with pytest.raises(UnknownRoute):
        find_task_route("POST", path)


def test_a_path_that_may_contain_a_secret_is_not_repeated() -> None:
    with pytest.raises(UnknownRoute) as refusal:
        find_task_route("POST", "/callback/00ff")
    assert "00ff" not in refusal.value.detail


@pytest.mark.parametrize(("method", "path", "allow"), [("PUT", "/tasks", "POST, GET"), ("GET", "/callbacks/a", "POST")])
def test_other_methods(method: str, path: str, allow: str) -> None:
    with pytest.raises(MethodNotAllowed) as refusal:
        find_task_route(method, path)
    assert refusal.value.allow == allow


def test_routes_without_a_key() -> None:
    assert {TaskOperation.CALLBACK, TaskOperation.SIGNAL, TaskOperation.PROVIDERS} == PUBLIC


def test_the_delay_of_a_task_is_limited() -> None:
    check_due(None, 1000.0, 60.0)
    check_due(1_060_000, 1000.0, 60.0)
    with pytest.raises(BadRequest, match=r"delayUntil is '1970-01-01T00:17:40\.001Z'; .* next 60 seconds \(max_delay\)"):
        check_due(1_060_001, 1000.0, 60.0)


def test_the_wait_of_a_task_is_limited() -> None:
    with pytest.raises(BadRequest, match="maxWaitTime is '61'; expected seconds, at most 60"):
        read_task(b'{"targetUrl": "/", "maxWaitTime": 61}', 60.0)
    assert read_task(b'{"targetUrl": "/", "maxWaitTime": 60}', 60.0).wait == 60
    polled = b'{"targetUrl": "https://api.elevenlabs.io/v1/dubbing", "provider": "elevenlabs-dubbing"}'
    assert (read_task(polled).wait, read_task(polled, 60.0).wait) == (1800.0, 60.0)
