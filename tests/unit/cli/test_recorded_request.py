import base64
import json

import pytest

from queue_middleware.cli.recorded_request import UnreadableRecording, parse_recording

HEADERS = (("Host", "receiver.test"), ("webhook-id", "id_1"), ("X-Empty", ""))
BODY = b'{"a": "\xc3\xa4"}'


def dump(*, first: str = "", end: str = "\r\n", body: bytes = BODY, extra: tuple[tuple[str, str], ...] = ()) -> bytes:
    lines = [first] * bool(first) + [f"{name}: {value}" for name, value in (*HEADERS, *extra)]
    return (end.join(lines) + end * 2).encode() + body


@pytest.mark.parametrize("first", ["", "POST /done?a=1 HTTP/1.1", "HTTP/1.1 200 OK", "HTTP/2 200", "HTTP/1.1 200 "])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_dump_is_read(first, end):
    (request,) = parse_recording(dump(first=first, end=end))
    assert request == (HEADERS, BODY, ())


@pytest.mark.parametrize("times", [1, 10_000])
def test_an_interim_response_is_skipped(times):
    (request,) = parse_recording(b"HTTP/1.1 100 Continue\r\n\r\n" * times + dump(first="HTTP/1.1 200 OK"))
    assert request.body == BODY


def test_a_body_may_contain_empty_lines():
    assert parse_recording(dump(body=b"a\n\nb\r\n\r\nc"))[0].body == b"a\n\nb\r\n\r\nc"


def test_a_request_without_a_body():
    assert parse_recording(b"POST / HTTP/1.1\r\nwebhook-id: a\r\n")[0] == ((("webhook-id", "a"),), b"", ())


def test_a_line_break_after_the_body_is_left_out():
    (request,) = parse_recording(dump(extra=(("content-length", str(len(BODY))),)) + b"\r\n")
    assert request.body == BODY
    assert request.notes == ("left out 2 bytes of white space after the body",)


@pytest.mark.parametrize("length", [len(BODY) + 5, len(BODY) - 1])
def test_another_length_is_noted(length):
    (request,) = parse_recording(dump(extra=(("Content-Length", str(length)),)))
    assert request.body == BODY
    assert f"Content-Length is {length}" in request.notes[0]


@pytest.mark.parametrize("body", [b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n", b"hello world"])
def test_a_chunked_body_is_joined(body):
    (request,) = parse_recording(dump(extra=(("Transfer-Encoding", "chunked"),), body=body))
    assert request.body == b"hello world"


def archive(*requests: dict[str, object]) -> bytes:
    return json.dumps({"log": {"version": "1.2", "entries": [{"request": request} for request in requests]}}).encode()


def entry(body: object, *, name: str = "Webhook-Id") -> dict[str, object]:
    return {"method": "POST", "url": "http://receiver.test/", "headers": [{"name": name, "value": "id_1"}], "postData": body}


def test_an_archive_is_read():
    encoded = {"text": base64.b64encode(BODY).decode(), "encoding": "base64"}
    requests = parse_recording(archive(entry({"text": BODY.decode()}), entry({}, name="accept"), entry(encoded)))
    assert [request.body for request in requests] == [BODY, BODY]
    assert requests[0].headers == (("Webhook-Id", "id_1"),)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no headers"),
        (b"hello", "'hello' is not a header"),
        (b"POST / HTTP/1.1\r\n\r\nbody", "no headers"),
        (b'{"status": "OK"}', "not a HAR archive"),
        (b"{" * 100_000, "not a HAR archive"),
        (archive(), "none of the 0 requests"),
        (archive(entry({"text": "?", "encoding": "base64"})), "not base64"),
        (archive({"headers": 1}), "not a HAR archive"),
    ],
)
def test_other_content_is_refused(content, reason):
    with pytest.raises(UnreadableRecording, match=reason):
        parse_recording(content)
