"""URL templates: which are refused, how they are rendered, and that no response can change the host or path that they name."""

import json
import time

import msgspec
import pytest

from queue_middleware.errors import BadRequest
from queue_middleware.syntax.json_text import LARGE_BYTES, MISSING, read_json
from queue_middleware.tasks.polling.templates import StartResponse, TemplateError, check_path, check_template, read_path, render

BODY = {
    "id": "abc-123",
    "number": 7,
    "status_url": "https://queue.example/requests/7/status",
    "here": "../up/there",
    "urls": {"get": "https://api.example/v1/p/abc"},
    "items": [{"key": "first"}, {"key": "sec/ond"}],
    "evil": "x/../../admin?a=b#c d@e",
    "dots": "..",
    "null": None,
    "true": True,
    "object": {},
    "empty": "",
    "file": "file:///etc/passwd",
    "host": "//evil.example/x",
    "user": "https://user@api.example/x",
    "umlaut": "ä&b",
}


def start(body=BODY, url="https://api.example:8443/v1/models/m/predictions?x=1") -> StartResponse:
    headers = ((b"Location", b"/jobs/9"), (b"x-job", b"a b"))
    return StartResponse(url, 202, headers, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("template", "url"),
    [
        ("{startResult.body.status_url}", "https://queue.example/requests/7/status"),
        ("{startResult.body.urls.get}?logs=1", "https://api.example/v1/p/abc?logs=1"),
        ("{startResult.body.here}", "https://api.example:8443/v1/models/up/there"),
        ("{startResult.headers.location}", "https://api.example:8443/jobs/9"),
        ("{startResult.headers.LOCATION}/result", "https://api.example:8443/jobs/9/result"),
        ("/v1/tasks/{startResult.body.id}", "https://api.example:8443/v1/tasks/abc-123"),
        ("tasks/{startResult.body.id}", "https://api.example:8443/v1/models/m/tasks/abc-123"),
        ("https://other.example/{startResult.body.number}", "https://other.example/7"),
        ("https://other.example/{startResult.body.items.1.key}/x", "https://other.example/sec%2Fond/x"),
        ("/q?id={startResult.body.umlaut}&s={startResult.statusCode}", "https://api.example:8443/q?id=%C3%A4%26b&s=202"),
        (
            "/p/{startResult.body.evil}/end",
            "https://api.example:8443/p/x%2F..%2F..%2Fadmin%3Fa%3Db%23c%20d%40e/end",
        ),
        ("/q?j={startResult.headers.x-job}", "https://api.example:8443/q?j=a%20b"),
        # Another host that the response names: the caller has to check that it is allowed.
        ("{startResult.body.host}", "https://evil.example/x"),
        ("{startResult.body.user}", "https://user@api.example/x"),
    ],
)
def test_variables_are_rendered(template, url):
    check_template("urlTemplate", template)
    assert render(template, start()) == url


@pytest.mark.parametrize(
    "variable", ["id2", "id.x", "null", "true", "object", "items", "items.5.key", "items.x", "empty", "urls.get.0", "dots"]
)
def test_values_that_cannot_be_in_a_url_are_refused(variable):
    with pytest.raises(TemplateError, match=f"body.{variable}"):
        render(f"/x/{{startResult.body.{variable}}}", start())


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b'"text"', b"\xff", b"[" * 100_000])
def test_a_response_without_json_has_no_values(body):
    with pytest.raises(TemplateError, match=r"no usable body\.id"):
        render("/x/{startResult.body.id}", StartResponse("https://a.example/", 200, (), body))


@pytest.mark.parametrize("name", ["file", "long", "backslash"])
def test_urls_that_are_not_http_are_refused(name):
    body = {**BODY, "long": "https://a.example/" + "x" * 2050, "backslash": "https://a.example/a\\b"}
    with pytest.raises(TemplateError, match="no valid HTTP URL"):
        render(f"{{startResult.body.{name}}}", start(body))


def test_a_relative_template_needs_an_http_target():
    with pytest.raises(TemplateError, match="no valid HTTP URL"):
        render("/v1/{startResult.body.id}", start(url="/local"))


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("", "1 to 2048"),
        ("/" + "x" * 2048, "1 to 2048"),
        ("/{id}", r"\{id\} is not a known variable; write \{startResult.body"),
        ("/{startResult.body}", "not a known variable"),
        ("/{startResult.body.}", "not a known variable"),
        ("/{startResult.body.a b}", "not a known variable"),
        ("/{startResult.status}", "not a known variable"),
        ("/{pollResult.body.id}", "not a known variable"),
        ("/{startResult.body.id", "brace"),
        ("/startResult.body.id}", "brace"),
        ("/{{startResult.body.id}}", "brace"),
        ("/a\\b", "backslash"),
        ("/a\r\nx: y", "control"),
        ("https://{startResult.body.host}/x", "a literal host"),
        ("https://api.{startResult.body.host}", "a literal host"),
        ("https://me@api.example/", "a literal host"),
        ("https:///x", "a literal host"),
        ("{startResult.body.base}.example/", "a path or a query only"),
        ("{startResult.body.base}{startResult.body.id}", "a path or a query only"),
        ("//evil.example/{startResult.body.id}", "must begin with https://"),
        ("ftp://a.example/", "must begin with https://"),
        ("javascript:alert(1)", "must begin with https://"),
    ],
)
def test_templates_that_are_refused(template, error):
    with pytest.raises(BadRequest, match=error) as refusal:
        check_template("pollConfig.urlTemplate", template)
    assert "pollConfig.urlTemplate" in refusal.value.detail


def test_paths():
    value = {"a": [{"b": None}, 2], "0": "zero"}
    assert read_path(value, "") is value
    assert read_path(value, "a.0.b") is None
    assert read_path(value, "a.1") == 2
    assert read_path(value, "0") == "zero"
    for nothing in ("b", "a.2", "a.-1", "a.0.c", "a.1.x", "a.x", "0.0"):
        assert read_path(value, nothing) is MISSING
    assert read_path(MISSING, "a") is MISSING
    assert read_json(b"{") is MISSING


@pytest.mark.parametrize("path", [".", "a.", ".a", "a..b", "a b", "{a}", "a" * 257, ".".join("a" * 17)])
def test_paths_that_are_refused(path):
    with pytest.raises(BadRequest, match=r"resultPath is .*output\.0\.url"):
        check_path("resultPath", path)


def test_paths_that_are_accepted():
    for path in ("", "a", "output.0.url", "assets.video", "a-b_c.d"):
        check_path("resultPath", path)


LARGE_TEXT = "x" * (2 * LARGE_BYTES)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("status", "OK"),
        ("text", LARGE_TEXT),
        ("deep.list.1.word", "here"),
        ("deep.list.2", MISSING),
        ("deep.none", None),
        ("nothing", MISSING),
        ("rows.19999.k", 19999),
        ("status.x", MISSING),
    ],
)
def test_a_large_value_is_read_like_a_small_one(path: str, found: object) -> None:
    large = {
        "status": "OK",
        "text": LARGE_TEXT,
        "deep": {"list": [LARGE_TEXT, {"word": "here"}], "none": None},
        "rows": [{"k": number} for number in range(20_000)],  # larger than LARGE by itself,
    }
    assert read_path(read_json(json.dumps(large, indent=1).encode()), path) == found


@pytest.mark.parametrize("end", [b"", b"]", b", tru]", b'"\xff"]', b'"\\ud80"]', b"1]x"])
def test_a_large_text_that_is_not_json(end: bytes) -> None:
    assert read_json(b'["' + LARGE_TEXT.encode() + b'", ' + end) is MISSING


def test_deep_nesting_is_not_json() -> None:
    half = LARGE_BYTES // 2
    assert read_path(read_json(b'{"status": "OK", "deep": ' + b"[" * half + b"]" * half + b"}"), "status") == "OK"
    assert read_json(b"[" * LARGE_BYTES + b"]" * (LARGE_BYTES - 1)) is MISSING


def test_megabytes_are_read_quickly() -> None:
    """Ten times as fast as decoding all of it."""
    body = json.dumps({"rows": [{"k": number} for number in range(600_000)], "status": "OK"}).encode()
    began = time.thread_time()
    assert read_path(read_json(body), "status") == "OK"
    took = time.thread_time() - began
    began = time.thread_time()
    json.loads(body)
    assert took < (time.thread_time() - began) / 4


def test_parts_of_a_large_value_can_be_serialized_again() -> None:
    rows = [{"k": number} for number in range(100_000)]
    part = read_path(read_json(json.dumps({"output": {"rows": rows}}).encode()), "output")
    assert json.loads(msgspec.json.encode(part)) == {"rows": rows}
    assert json.loads(msgspec.json.encode(read_path(part, "rows"))) == rows
