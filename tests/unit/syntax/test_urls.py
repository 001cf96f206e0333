import pytest

from queue_middleware.errors import InvalidWebhook
from queue_middleware.outbound.guard import parse_url
from queue_middleware.syntax.urls import MAX_URL, encode_url, request_target, split_plain

ENCODED = [
    ("", ""),
    ("/", "/"),
    ("/hook?a=1&b=two words", "/hook?a=1&b=two%20words"),
    ("/two words/", "/two%20words/"),
    ("/%20?%7e=%zz&100%", "/%20?%7e=%zz&100%"),
    ("/ä/日本?ö=ü", "/%C3%A4/%E6%97%A5%E6%9C%AC?%C3%B6=%C3%BC"),
    ("/\U0001f600", "/%F0%9F%98%80"),
    ("/\ud800x?\udfff", "/%EF%BF%BDx?%EF%BF%BD"),
    ('/"<>^`{}', "/%22%3C%3E%5E%60%7B%7D"),
    ("/|[]'!$&()*+,;=:@~_-", "/|[]'!$&()*+,;=:@~_-"),
    ("?\"<>'", "?%22%3C%3E%27"),
    ("?^`{}|[]!$&()*+,;=:@/?~", "?^`{}|[]!$&()*+,;=:@/?~"),
    ("/a#fragment with anything", "/a"),
    ("?#x", "?"),
    ("/a/./b/../c", "/a/c"),
    ("/a/%2e%2E/b/.%2e/c/%2E", "/c/"),
    ("/../../x", "/x"),
    ("/a/..", "/"),
    ("/.well-known/x", "/.well-known/x"),
    ("/a%2fb", "/a%2fb"),
    ("/a//b", "/a//b"),
    ("/x?/../y", "/x?/../y"),
]


@pytest.mark.parametrize(("given", "encoded"), ENCODED)
def test_paths_and_queries(given, encoded):
    assert encode_url(f"https://example.com{given}", "it") == f"https://example.com{encoded}"
    assert encode_url(f"https://example.com{encoded}", "it") == f"https://example.com{encoded}", "it is stable"


@pytest.mark.parametrize(("given", "encoded"), ENCODED)
def test_a_url_is_plain_only_if_it_is_encoded_already(given, encoded):
    plain = split_plain(f"https://example.com{given}")
    assert plain is None or (
        given == encoded and plain == ("https://example.com", request_target(f"https://h{given}").decode())
    )
    assert split_plain(f"https://example.com:8443{encoded}") or encoded.startswith("?") or "/." in encoded or "/%2" in encoded


@pytest.mark.parametrize("code", range(0x180))
@pytest.mark.parametrize("before", ["/a/", "/a?", "/"])
def test_each_character_of_a_plain_url_needs_no_encoding(before, code):
    target = f"{before}{chr(code)}x"
    if split_plain(f"https://example.com{target}"):
        parsed = parse_url(f"https://example.com{target}")
        assert (parsed.netloc, request_target(f"https://example.com{target}")) == (b"example.com", target.encode())
        # An origin without a plain path, so that the common course encodes it.
        assert encode_url(f"https://Example.com{target}", "it") == f"https://Example.com{target}"


@pytest.mark.parametrize(
    "url",
    [
        "https://user@example.com/", "https://Example.com/", "https://example.com\\@other/", "https://[::1]/", "ftp://example.com/",
        "https://example.com/ ", " https://example.com/", "https://example.com/x\n", "https://example.com?x", "//example.com/x",
        "https://example.com:123456/", "https:///x", "https://bücher.example/", "https://example.com/" + "x" * MAX_URL,
    ],
)  # fmt: skip
def test_all_other_urls_are_not_plain(url):
    assert split_plain(url) is None


@pytest.mark.parametrize(
    ("given", "encoded"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example:8443", "xn--bcher-kva.example:8443"),
        ("faß.example", "xn--fa-hia.example"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("ｅｘａｍｐｌｅ.com", "example.com"),  # noqa: RUF001
        ("①②⑦.⓪.⓪.①", "127.0.0.1"),
        ("Example.com", "Example.com"),
        ("[2606:4700:4700::1111]:8443", "[2606:4700:4700::1111]:8443"),
    ],
)
def test_hosts(given, encoded):
    assert encode_url(f"https://{given}/x y", "it") == f"https://{encoded}/x%20y"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a\tb", "https://example.com/a\nb", "https://example.com/a\rb", "https://example.com/\x00",
        "https://example.com/\x7f", "https://example.com/\x85", "https://example.com\\a", "https://example.com/a\\b",
        " https://example.com/", "https://example.com/ ", "https://exa mple.com/", "https://user@example.com/",
        "https://user:pass word@example.com/", "https://-ü-.example\u200d/", "https://ü\ud800.example/", "ftp://example.com/",
        "https:/example.com/a b", "",
    ],
)  # fmt: skip
def test_invalid_and_ambiguous_urls_are_refused(url):
    with pytest.raises(InvalidWebhook, match=r"^it "):
        encode_url(url, "it")


def test_the_limit_is_that_of_the_encoded_url():
    room = MAX_URL - len("https://example.com/")
    assert encode_url("https://example.com/" + " " * (room // 3 - 1) + "x", "it")
    with pytest.raises(InvalidWebhook, match=f"longer than {MAX_URL}"):
        encode_url("https://example.com/" + "ä" * (room // 6 + 1), "it")


@pytest.mark.parametrize(
    ("url", "target"),
    [("https://e.example", b"/"), ("https://e.example?a=50%", b"/?a=50%"), ("https://e.example/a%2fb|?^", b"/a%2fb|?^")],
)
def test_the_called_url_is_the_stored_url(url, target):
    assert request_target(encode_url(url, "it")) == target


@pytest.mark.parametrize(
    ("good", "host"),
    [
        (True, "a" * 63 + ".example"),
        (False, "a" * 64 + ".example"),
        (True, ".".join(["a" * 62] * 4) + ".b"),
        (True, ".".join(["a" * 62] * 4) + ".b."),
        (False, ".".join(["a" * 62] * 4) + ".bb"),
        (False, "ü" * 60 + ".example"),
        (False, "a..example"),
        (False, ".example"),
        (False, "example.com:0"),
        (False, "example.com:65536"),
        (False, "example.com:8a"),
    ],
)
def test_a_host_that_cannot_exist_is_refused(good, host):
    if good:
        assert parse_url(f"https://{host}/", "it")
    else:
        with pytest.raises(InvalidWebhook, match=r"^it "):
            parse_url(f"https://{host}/", "it")
