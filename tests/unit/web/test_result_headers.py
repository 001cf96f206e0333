"""How a stored response is served to browsers; nothing changes for other clients."""

from __future__ import annotations

import pytest

from queue_middleware.web.result_headers import served_headers

PAGE = ((b"content-type", b"text/html"), (b"x-own", b"1"))
LOGIN = (*PAGE, (b"set-cookie", b"session=1"), (b"clear-site-data", b'"*"'), (b"refresh", b"0; url=/x"))
GUARDS = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox")]


def browser(dest: str, mode: str, site: str) -> list[tuple[bytes, bytes]]:
    fetch_headers = {"sec-fetch-dest": dest, "sec-fetch-mode": mode, "sec-fetch-site": site}
    return [(b"host", b"x"), *((name.encode(), value.encode()) for name, value in fetch_headers.items())]


@pytest.mark.parametrize(
    "request_headers",
    [
        [],
        [(b"host", b"service.test"), (b"accept", b"text/html"), (b"user-agent", b"Mozilla/5.0")],
        browser("empty", "cors", "same-origin"),
        browser("empty", "same-origin", "same-origin"),
        browser("empty", "no-cors", "none"),
    ],
)
def test_clients_and_scripts_of_this_service_receive_the_response_unchanged(request_headers: list[tuple[bytes, bytes]]) -> None:
    assert served_headers(LOGIN, request_headers, external=False) == list(LOGIN)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin", "none"])
@pytest.mark.parametrize(
    ("dest", "mode"),
    [("document", "navigate"), ("iframe", "navigate"), ("frame", "navigate"), ("object", "no-cors"), ("embed", "navigate"),
     ("fencedframe", "navigate"), ("image", "no-cors"), ("script", "no-cors"), ("serviceworker", "same-origin"),
     ("empty", "navigate")],
)  # fmt: skip
def test_a_displayed_response_is_sandboxed_and_sets_no_cookies(dest: str, mode: str, site: str) -> None:
    assert served_headers(LOGIN, browser(dest, mode, site), external=False) == [*PAGE, *GUARDS]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_scripts_of_other_origins_receive_it_without_cookies(site: str) -> None:
    assert served_headers(LOGIN, browser("empty", "no-cors", site), external=False) == list(PAGE)


def test_a_part_of_the_headers_is_sufficient_to_recognize_a_browser() -> None:
    for part in ((b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"document"), (b"sec-fetch-site", b"cross-site")):
        assert served_headers(LOGIN, [part], external=False) == [*PAGE, *GUARDS]


def test_the_applications_own_policy_is_kept() -> None:
    own = (b"content-security-policy", b"default-src 'self'")
    assert served_headers((*PAGE, own), browser("document", "navigate", "none"), external=False) == [*PAGE, own, *GUARDS]


@pytest.mark.parametrize(
    ("kinds", "sandboxed"),
    [
        ((b"application/pdf",), False),
        ((b"Application/PDF; x=1",), False),
        ((b"text/html",), True),
        ((b"image/svg+xml",), True),
        ((), True),
        ((b"application/pdf", b"text/html"), True),
        ((b"text/html; application/pdf",), True),
    ],
)
def test_types_that_browsers_show_with_a_plugin_are_not_sandboxed(kinds: tuple[bytes, ...], sandboxed: bool) -> None:
    headers = tuple((b"content-type", kind) for kind in kinds)
    for external in (False, True):
        served = served_headers(headers, browser("document", "navigate", "none"), external=external)
        assert (GUARDS[1] in served) is sandboxed
        assert GUARDS[0] in served


@pytest.mark.parametrize(
    "request_headers", [[], browser("document", "navigate", "cross-site"), browser("empty", "cors", "same-origin")]
)
def test_of_an_external_service_only_content_headers_are_served(request_headers: list[tuple[bytes, bytes]]) -> None:
    kept = (
        (b"content-type", b"text/html"), (b"content-length", b"7"), (b"content-encoding", b"gzip"), (b"etag", b'"1"'),
        (b"content-disposition", b"attachment"), (b"x-fal-billable-units", b"2"), (b"x-ratelimit-remaining", b"3"),
    )  # fmt: skip
    acting = [
        b"set-cookie", b"clear-site-data", b"service-worker-allowed", b"strict-transport-security", b"refresh", b"location",
        b"content-security-policy", b"content-security-policy-report-only", b"access-control-allow-origin", b"alt-svc", b"nel",
        b"access-control-allow-credentials", b"public-key-pins", b"report-to", b"reporting-endpoints", b"link", b"sourcemap",
        b"www-authenticate", b"x-accel-redirect", b"x-sendfile", b"x-frame-options", b"content-location",
        b"cache-control", b"vary",
    ]  # fmt: skip
    headers = (*kept, *((name, b"x") for name in acting))
    assert served_headers(headers, request_headers, external=True) == [*kept, *GUARDS]


@pytest.mark.parametrize("value", [b"no-cache", b"no-store", b"private"])
def test_responses_that_caches_do_not_reuse_are_unchanged(value: bytes) -> None:
    headers = (*PAGE, (b"cache-control", value), (b"etag", b'"1"'))
    assert served_headers(headers, [], external=False) == list(headers)


def test_a_cacheable_response_that_is_never_changed_has_no_vary() -> None:
    headers = ((b"content-type", b"text/plain"), (b"cache-control", b"public, max-age=60"))
    assert served_headers(headers, [], external=False) == list(headers)
    assert served_headers((*headers, (b"set-cookie", b"a=1")), [], external=False)[-1][0] == b"vary"


@pytest.mark.parametrize("name", [b"cache-control", b"expires"])
def test_a_cacheable_response_has_vary(name: bytes) -> None:
    headers = (*PAGE, (name, b"Public, Max-Age=60"))
    vary = (b"vary", b"sec-fetch-dest, sec-fetch-mode, sec-fetch-site")
    assert served_headers(headers, [], external=False) == [*headers, vary]
    assert vary in served_headers(headers, browser("document", "navigate", "none"), external=False)


@pytest.mark.parametrize("kind", [b"multipart/x-mixed-replace; boundary=b", b"Multipart/Mixed", b" multipart/x-mixed-replace"])
def test_multipart_results_are_not_served_as_multipart(kind: bytes) -> None:
    """Firefox splits these and applies the headers of each part, including `Set-Cookie` (`nsMultiMixedConv`)."""
    given, whole = (b"content-type", kind), (b"content-type", b"application/octet-stream")
    for call in (browser("document", "navigate", "cross-site"), browser("image", "no-cors", "cross-site")):
        assert served_headers((given,), call, external=False) == [whole, *GUARDS]
    assert served_headers((given,), browser("empty", "cors", "cross-site"), external=False) == [whole]
    assert served_headers((given,), [], external=True) == [whole, *GUARDS]
    # Unchanged for other programs, and for pages of this service.
    assert served_headers((given,), [], external=False) == [given]
    assert served_headers((given,), browser("empty", "cors", "same-origin"), external=False) == [given]


def test_form_data_is_served_unchanged() -> None:
    given = (b"content-type", b"multipart/form-data; boundary=b")
    assert served_headers((given,), browser("document", "navigate", "none"), external=False) == [given, *GUARDS]
