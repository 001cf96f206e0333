"""The formats of fal's queue."""

import json

import pytest

from queue_middleware.errors import BadRequest, UriTooLong
from queue_middleware.jobs.models import ErrorType, Failure, Job, JobState, Priority, Progress, RetryCause, RetryPolicy
from queue_middleware.web.fal.params import read_options
from queue_middleware.web.fal.responses import Links, is_over, status_body, submitted_body, wants_logs
from queue_middleware.web.fal.submit import split_query
from queue_middleware.web.path_rules import check_length, check_target
from tests.support.factories import make_job_view

ID = "0192f0c0-0000-7000-8000-000000000000"
BASE = "https://api.example.com/fal/queue"
LINKS = Links(BASE)


@pytest.mark.parametrize(
    "target", ["/", "/a", "/a/", "/a/b-c_d~e", "/a.b", "/%C3%A9", "/a%2Fb", "/...", "/a..b", "/%252e", "/a:b@c"]
)
def test_targets_that_are_queued(target: str) -> None:
    check_target(target, "/fal/queue")


@pytest.mark.parametrize(
    "target",
    [
        "/a/../b",
        "/..",
        "/.",
        "/a/./b",
        "/%2e%2e/a",
        "/.%2E/a",
        "/a%2f..%2fb",
        "//a",
        "/a//b",
        "/a//",
        "/a\\b",
        "/a%5cb",
        "/a%00",
        "/a%0d%0a",
        "/a\x7f",
        "/a b",
        "/%7f",
        "/fal/queue",
        "/fal/queue/submit/x",
        "/%66al/queue/x",
        "/fal%2fqueue/x",
        "/fal/queue/",
    ],
)
def test_targets_that_are_not_queued(target: str) -> None:
    with pytest.raises(BadRequest):
        check_target(target, "/fal/queue")


def test_a_path_beside_the_prefix_is_queued() -> None:
    check_target("/fal/queues", "/fal/queue")


@pytest.mark.parametrize(
    ("query", "theirs", "ours"),
    [
        (b"", b"", {}),
        (b"a=1&b=%20&a=2", b"a=1&b=%20&a=2", {}),
        (b"fal_webhook=https%3A%2F%2Fx%2F%3Fa%3D1", b"", {"fal_webhook": "https://x/?a=1"}),
        (b"a=1&fal_webhook=x&&b=+&fal_new=", b"a=1&&b=+", {"fal_webhook": "x", "fal_new": ""}),
        (b"%66al_webhook=x&afal_b=1", b"afal_b=1", {"fal_webhook": "x"}),
        (b"fal=1&FAL_x=2", b"fal=1&FAL_x=2", {}),
    ],
)
def test_only_fal_parameters_are_removed(query: bytes, theirs: bytes, ours: dict[str, str]) -> None:
    assert split_query(query) == (theirs, ours)


def test_a_repeated_parameter_of_the_queue_is_refused() -> None:
    with pytest.raises(BadRequest, match="fal_webhook is given more than once"):
        split_query(b"fal_webhook=a&fal_webhook=b")


def test_the_longest_call() -> None:
    check_length("/" * 2000, b"x" * 48)
    with pytest.raises(UriTooLong):
        check_length("/" * 2000, b"x" * 49)


def test_defaults_without_parameters() -> None:
    options = read_options({}, {}, 3)
    assert (
        options.retry,
        options.priority,
        options.start_timeout,
        options.webhook,
        options.max_queue_length,
    ) == (
        RetryPolicy(3),
        Priority.NORMAL,
        None,
        None,
        None,
    )


def options(**headers: str):
    return read_options({f"x-fal-{name.replace('_', '-')}".encode(): value.encode() for name, value in headers.items()}, {}, 3)


def test_priority_and_unknown_values() -> None:
    assert options(queue_priority="low").priority is Priority.LOW
    for word in ("normal", "high", "", "9"):
        assert options(queue_priority=word).priority is Priority.NORMAL
    assert options(no_retry="perhaps", runner_hint="x", nonsense="1").retry == RetryPolicy(3)


@pytest.mark.parametrize(
    ("value", "stored"), [("0", False), ("False", False), ("no", False), ("1", True), ("", True), ("perhaps", True)]
)
def test_whether_the_response_is_stored(value: str, stored: bool) -> None:
    assert options(store_io=value).store_io is stored


def test_the_newer_start_deadline_takes_precedence() -> None:
    assert options(request_timeout="30").start_timeout == 30.0
    assert options(request_timeout="0.30000000000000004").start_timeout == 0.1 + 0.2
    assert options(request_timeout="30", request_start_timeout="5.5").start_timeout == 5.5
    assert options(request_start_timeout="5.5", request_timeout="30").start_timeout == 5.5
    with pytest.raises(BadRequest, match="x-fal-request-timeout is 'soon'"):
        options(request_start_timeout="5.5", request_timeout="soon")


@pytest.mark.parametrize("value", ["", "soon", "1.", ".5", "0.1", "0", "-1", "nan", "inf", "1e12", "0x10"])
def test_malformed_seconds(value: str) -> None:
    with pytest.raises(BadRequest, match="x-fal-request-timeout"):
        options(request_timeout=value)


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_no_retry_header(value: str) -> None:
    assert options(no_retry=value).retry == RetryPolicy(1)


def test_retry_config() -> None:
    config = {"server_error": {"retries": 2}, "timeout": {"retries": 0}, "sunspots": {"retries": "many"}}
    assert options(retry_config=json.dumps(config)).retry == RetryPolicy(3, {RetryCause.SERVER_ERROR: 2, RetryCause.TIMEOUT: 0})


@pytest.mark.parametrize(
    "value",
    [
        "{",
        "[]",
        "3",
        '{"timeout": 3}',
        '{"timeout": {"retries": -1}}',
        '{"timeout": {"retries": 1.5}}',
        '{"timeout": {"retries": true}}',
        '{"timeout": {}}',
        "[" * 20000,
    ],
)
def test_malformed_retry_config(value: str) -> None:
    with pytest.raises(BadRequest, match="x-fal-retry-config"):
        options(retry_config=value)


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "\u0663", "9" * 16])
def test_malformed_queue_length(value: str) -> None:
    with pytest.raises(BadRequest, match="fal_max_queue_length"):
        read_options({}, {"fal_max_queue_length": value}, 3)


def test_the_response_to_a_submission() -> None:
    assert json.loads(submitted_body(ID, 4, LINKS)) == {
        "status": "IN_QUEUE",
        "request_id": ID,
        "response_url": f"{BASE}/requests/{ID}/response",
        "status_url": f"{BASE}/requests/{ID}/status",
        "cancel_url": f"{BASE}/requests/{ID}/cancel",
        "logs": None,
        "metrics": {},
        "queue_position": 4,
        "gateway_request_id": ID,
    }


def test_a_host_cannot_break_out_of_the_json() -> None:
    body = submitted_body(ID, 0, Links('http://a", "x": "\u00e9'))
    assert body.isascii()
    assert json.loads(body)["status_url"].startswith('http://a", "x": "\u00e9/requests/')


def job(state: JobState, **changes: object) -> Job:
    return make_job_view(state, request_id=ID, **changes)


@pytest.mark.parametrize(
    ("job", "status", "rest"),
    [
        (job(JobState.QUEUED, position=3), "IN_QUEUE", {"metrics": {}, "queue_position": 3}),
        (job(JobState.DELAYED, position=0), "IN_QUEUE", {"metrics": {}, "queue_position": 0}),
        (job(JobState.RUNNING, started_at=5), "IN_PROGRESS", {"metrics": {}}),
        (
            job(JobState.RUNNING, progress=Progress(0.5, "caf\u00e9")),
            "IN_PROGRESS",
            {"metrics": {}, "progress": {"fraction": 0.5, "stage": "caf\u00e9"}},
        ),
        (
            job(JobState.COMPLETED, started_at=1000, finished_at=2500, status=200, progress=Progress(1.0)),
            "COMPLETED",
            {"metrics": {"inference_time": 1.5}},
        ),
        (
            job(JobState.COMPLETED, started_at=0, finished_at=0, status=422),
            "COMPLETED",
            {"metrics": {"inference_time": 0.0}, "error": "Invalid status code: 422"},
        ),
        (
            job(JobState.COMPLETED, started_at=3_600_000, finished_at=300, status=200),  # the clock was set back
            "COMPLETED",
            {"metrics": {"inference_time": 0.0}},
        ),
        (
            job(JobState.FAILED, failure=Failure(ErrorType.START_TIMEOUT, "too late")),
            "COMPLETED",
            {"metrics": {}, "error": "too late", "error_type": "request_timeout"},
        ),
        (
            job(JobState.CANCELLED, failure=Failure(ErrorType.CLIENT_CANCELLED, "Request was cancelled")),
            "COMPLETED",
            {"metrics": {}, "error": "Request was cancelled", "error_type": "client_cancelled"},
        ),
    ],
)
def test_status(job: Job, status: str, rest: dict[str, object]) -> None:
    body = status_body(job, LINKS)
    assert body.isascii()
    urls = {f"{name}_url": f"{BASE}/requests/{ID}/{name}" for name in ("response", "status", "cancel")}
    assert json.loads(body) == {"status": status, "request_id": ID, **urls, "logs": None, **rest}
    recorded = ["status", "request_id", "response_url", "status_url", "cancel_url", "logs", "metrics"]
    assert list(json.loads(body)) == [*recorded, *(key for key in rest if key != "metrics")]
    assert is_over(job) == (status == "COMPLETED")
    assert json.loads(status_body(job, LINKS, ""))["logs"] == []


@pytest.mark.parametrize(("query", "wanted"), [(b"logs=1", True), (b"a=b&logs=True", True), (b"logs=0", False), (b"", False)])
def test_logs_are_off_by_default(query: bytes, wanted: bool) -> None:
    assert wants_logs(query) is wanted


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fal_webook", "did you mean fal_webhook?"),
        ("fal_webhok_events", "did you mean fal_webhook_events?"),
        ("fal_max_queue_len", "did you mean fal_max_queue_length?"),
        ("fal_callback_timeouts", "did you mean fal_callback_timeout?"),
        ("fal_", "known are fal_callback_timeout, "),
        ("fal_" + "x" * 10_000, "known are fal_callback_timeout, "),
        ("fal_WEBHOOK", "fal_webhook"),
    ],
)
def test_an_unknown_fal_parameter_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        read_options({}, {"fal_webhook": "https://a.example/", name: "1"}, 3)
    assert hint in refusal.value.detail
    assert repr(name[:64]) in refusal.value.detail
    assert len(refusal.value.detail) < 300


@pytest.mark.parametrize("name", ["fal_webhook", "fal_max_queue_length", "fal_jwt_token"])
def test_parameters_of_fals_clients_are_known(name: str) -> None:
    read_options({}, {name: "7"}, 3)
