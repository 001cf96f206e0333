import json
import time
from typing import Any

import pytest

from queue_middleware.errors import BadRequest
from queue_middleware.tasks.placeholders import (
    has_placeholder,
    has_placeholder_in_url,
    may_have_placeholder,
    substitute,
    substitute_in_url,
)
from tests.support.factories import make_request

URL = "https://service.example/fal/queue/v1/callbacks/00ff"
ENCODED = b"https%3A%2F%2Fservice.example%2Ffal%2Fqueue%2Fv1%2Fcallbacks%2F00ff"
FORM = ((b"content-type", b"application/x-www-form-urlencoded; charset=utf-8"),)


@pytest.mark.parametrize(
    ("texts", "may_have"),
    [
        ([], False), ([b"", b"a_b"], False), ([b"callback-url"], False), ([b"callback_ur", b"l"], False),
        ([b"", b"a", b"x{callback_url}"], True), ([b"%7Basyncqueue_callback_url%7d", b""], True), ([b"callback_url"], True),
    ],
)  # fmt: skip
def test_the_quick_check_misses_nothing(texts: list[bytes], may_have: bool) -> None:
    assert may_have_placeholder(*texts) is may_have


@pytest.mark.parametrize("placeholder", [b"{callback_url}", b"{asyncqueue_callback_url}"])
@pytest.mark.parametrize("where", ["body", "query", "raw_path", "headers"])
def test_it_is_found_in_every_part_of_a_request(where: str, placeholder: bytes) -> None:
    value = ((b"x-hook", b"url=" + placeholder),) if where == "headers" else b"/x" + placeholder
    assert has_placeholder(make_request(**{where: value}))


@pytest.mark.parametrize(
    "text",
    [b"", b"callback_url", b"{callback_url", b"callback_url}", b"{Callback_Url}", b"{x_callback_url}", b"{{callback-url}}"],
)
def test_similar_text_is_not_a_placeholder(text: bytes) -> None:
    request = make_request(text, headers=((b"x-hook", text),))
    assert not has_placeholder(request)
    assert substitute(request, URL) == request


def test_braces_may_be_percent_encoded_in_a_url() -> None:
    for placeholder in (b"%7Bcallback_url%7D", b"%7basyncqueue_callback_url%7d", b"{callback_url}"):
        request = make_request(query=b"a=%2F&hook=" + placeholder + b"&b=1", raw_path=b"/p/" + placeholder)
        assert has_placeholder(request)
        filled = substitute(request, URL)
        assert filled.query == b"a=%2F&hook=" + ENCODED + b"&b=1"
        assert filled.raw_path == b"/p/" + ENCODED
        assert has_placeholder_in_url(f"https://x.example/?hook={placeholder.decode()}")
        assert (
            substitute_in_url(f"https://x.example/?hook={placeholder.decode()}", URL)
            == f"https://x.example/?hook={ENCODED.decode()}"
        )


def test_a_json_body_stays_valid_json() -> None:
    body = json.dumps({"a": "{callback_url}", "b": ["x{asyncqueue_callback_url}y"]}).encode()
    strange = 'https://"quoted\\host"/'
    assert json.loads(substitute(make_request(body), strange).body) == {"a": strange, "b": [f"x{strange}y"]}


def test_json_in_a_json_string() -> None:
    inner = json.dumps({"hook": "{callback_url}"})
    body = json.dumps({"payload": inner}).encode()
    assert json.loads(json.loads(substitute(make_request(body), URL).body)["payload"]) == {"hook": URL}


def test_a_form_is_percent_encoded() -> None:
    for placeholder in (b"%7Bcallback_url%7D", b"{callback_url}"):
        request = make_request(b"a=1&hook=" + placeholder, headers=FORM)
        assert has_placeholder(request)
        assert substitute(request, URL).body == b"a=1&hook=" + ENCODED
    assert not has_placeholder(make_request(b"%7Bcallback_url%7D"))


def test_a_header_value_is_not_encoded() -> None:
    request = make_request(headers=((b"x-hook", b"<{callback_url}>; rel=hook"), (b"x-other", b"{callback_url")))
    assert substitute(request, URL).headers == ((b"x-hook", f"<{URL}>; rel=hook".encode()), (b"x-other", b"{callback_url"))


def test_bytes_that_are_not_text_are_kept() -> None:
    body = b"\xff\x00{callback_url}\xfe"
    assert substitute(make_request(body), URL).body == b"\xff\x00" + URL.encode() + b"\xfe"


@pytest.mark.parametrize("content", [b"{callback_url} ", b"%7bcallback_url%7D&", b"{asyncqueue_callback_url}"])
def test_the_number_of_placeholders_is_bounded(content: bytes) -> None:
    """Each placeholder grows tenfold at each attempt."""
    request = make_request(content * 100, headers=FORM)
    assert has_placeholder(request)
    assert substitute(request, URL).body.count(ENCODED) == 100
    with pytest.raises(BadRequest, match="has 101 placeholders of the callback URL; at most 100 are allowed"):
        has_placeholder(request.replace(query=b"a={callback_url}"))


@pytest.mark.parametrize(
    "body",
    [
        b"{" * 10_000_000 + b"{callback_url}",
        b"callback_url" * 800_000 + b"{callback_url}",
        b'{"a": 1},' * 10**6 + b"{callback_url}",
    ],
)
@pytest.mark.parametrize("headers", [FORM, ()])
def test_ten_megabytes_are_fast(body: bytes, headers: Any) -> None:
    """This takes a tenth of a second; with a pattern it took a second."""
    request = make_request(body, headers=headers)
    began = time.thread_time()
    assert has_placeholder(request)
    filled = substitute(request, URL)
    took = time.thread_time() - began
    assert took < 0.5
    assert filled.body.startswith(body[: -len(b"{callback_url}")])
