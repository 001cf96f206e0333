"""What is sent with a question, and that a key never goes to a host that only a provider's answer has named."""

import pytest

from queue_middleware.hosts import Origin, origin_of
from queue_middleware.taskspec import PollConfig
from queue_middleware.version import USER_AGENT
from queue_middleware.wire.questions import question_headers

HOME = "https://api.example/v1/run?webhook={asyncqueue_callback_url}"
KEY = (b"authorization", b"Bearer secret")
GIVEN = (
    KEY,
    (b"x-runway-version", b"2024-11-06"),
    (b"content-type", b"application/json"),
    (b"content-length", b"12"),
    (b"host", b"api.example"),
    (b"prefer", b"wait"),
    (b"if-match", b"x"),
    (b"x-callback", b"{asyncqueue_callback_url}"),
)


def config(template="{startResult.body.url}", **changes) -> PollConfig:
    return PollConfig(template, "status", ("done",), (), **changes)


def test_the_tasks_headers_go_home_without_those_about_its_body():
    headers = question_headers(config(), HOME, GIVEN, "https://api.example:443/status/1")
    assert headers == (
        KEY,
        (b"x-runway-version", b"2024-11-06"),
        (b"accept", b"application/json, */*;q=0.5"),
        (b"user-agent", USER_AGENT.encode()),
        (b"accept-encoding", b"identity"),
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/status",
        "http://api.example/status",
        "https://api.example:8443/status",
        "https://api.example.evil.example/",
        "https://sub.api.example/",
    ],
)
def test_no_key_for_a_host_that_an_answer_has_named(url):
    assert KEY not in question_headers(config(), HOME, GIVEN, url)


def test_a_host_that_the_submitter_wrote_down_may_know_the_key():
    asked = config(
        "https://status.example/x/{startResult.body.id}", result_url_template="https://cdn.example/{startResult.body.id}"
    )
    for url in ("https://status.example/x/1", "https://cdn.example/1", "https://api.example/"):
        assert KEY in question_headers(asked, HOME, GIVEN, url)
    assert KEY not in question_headers(asked, HOME, GIVEN, "https://status.example.evil.example/")


def test_a_task_whose_target_is_the_application_shows_its_headers_to_nobody():
    assert KEY not in question_headers(config(), "/start", GIVEN, "https://api.example/")
    assert KEY not in question_headers(config("/x"), "", GIVEN, "no-url")


def test_forwarding_can_be_switched_off():
    assert KEY not in question_headers(config(forward_auth=False), HOME, GIVEN, "https://api.example/")


def test_the_configured_headers_win():
    asked = config(headers={"Accept": "video/mp4", "Authorization": "Key other"})
    headers = question_headers(asked, HOME, GIVEN, "https://api.example/x")
    assert dict(headers)[b"accept"] == b"video/mp4"
    assert [value for name, value in headers if name == b"authorization"] == [b"Key other"]


def test_origins():
    assert origin_of("HTTPS://Api.Example/x") == origin_of("https://api.example.:443") == Origin("https", "api.example", 443)
    assert origin_of("http://[::1]:80/") == Origin("http", "::1", 80)
    assert origin_of("/x") is origin_of("") is origin_of("https://[bad") is origin_of("https://a:99999/") is None
