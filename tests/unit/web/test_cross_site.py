"""Headers of browsers in requests of a page, and which requests a queue accepts."""

from __future__ import annotations

from typing import Any

import pytest

from queue_middleware import Settings
from queue_middleware.errors import CrossSite
from queue_middleware.web.cross_site import CrossSiteCheck, is_cross_site
from tests.support.raw_asgi import http_scope

EVIL, APP = b"https://evil.example.net", b"https://app.example.com"
OWN = frozenset({b"service.example.com"})
NO_ORIGINS: frozenset[bytes] = frozenset()


@pytest.mark.parametrize(
    ("what", "site", "origin", "refused"),
    [
        # Chrome, Firefox, Safari from 16.4: both headers, Origin for all but GET and HEAD without CORS
        ("a link of another site", b"cross-site", None, True),
        ("an image of another site", b"cross-site", None, True),
        ("a form of another site", b"cross-site", EVIL, True),
        ("fetch with no-cors", b"cross-site", EVIL, True),
        ("fetch after a preflight", b"cross-site", EVIL, True),
        ("a sandboxed frame", b"cross-site", b"null", True),
        ("a redirect through another site", b"cross-site", b"null", True),
        ("a page of file://", b"cross-site", b"null", True),
        ("an extension without leave for this host", b"cross-site", b"chrome-extension://abcdefghijklmnop", True),
        ("a page of this service", b"same-origin", b"https://service.example.com", False),
        ("a page of this service behind a proxy that renames the host", b"same-origin", b"https://www.example.org", False),
        ("a link of this service", b"same-origin", None, False),
        ("another subdomain", b"same-site", b"https://www.example.com", False),
        ("another port", b"same-site", b"http://service.example.com:3000", False),
        ("the address bar", b"none", None, False),
        ("an extension with leave for this host", b"none", b"chrome-extension://abcdefghijklmnop", False),
        ("a word of a standard to come", b"cross-network", None, True),
        ("upper case", b"Cross-Site", EVIL, True),
        # Safari before 16.4, and every browser over plain http: no Sec-Fetch-Site
        ("an old browser's form of another site", None, EVIL, True),
        ("an old browser's sandboxed frame", None, b"null", True),
        ("an old browser's own form", None, b"https://service.example.com", False),
        ("an old browser's own form, TLS ended in front", None, b"http://service.example.com", False),
        ("an old browser's own form, at a port", None, b"http://SERVICE.example.com:8443", False),
        ("a host that begins like this one", None, b"https://service.example.com.evil.net", True),
        ("a host that ends like this one", None, b"https://evil-service.example.com", True),
        ("user information", None, b"https://service.example.com@evil.net", True),
        ("an extension whose name is a host", None, b"moz-extension://service.example.com", True),
        ("nothing at all: curl, fal's clients, servers", None, None, False),
    ],
)
def test_headers_and_the_decision(what: str, site: bytes | None, origin: bytes | None, refused: bool) -> None:
    assert is_cross_site(site, origin, NO_ORIGINS, OWN) is refused, what
    assert is_cross_site(site, origin, {APP}, OWN) is refused, what
    assert is_cross_site(site, origin, {b"*"}, OWN) is False, what


@pytest.mark.parametrize("site", [b"cross-site", b"same-site", None])
@pytest.mark.parametrize("origin", [APP, APP.upper()])
def test_a_configured_origin_is_allowed(site: bytes | None, origin: bytes) -> None:
    assert is_cross_site(site, origin, {APP}, OWN) is False


@pytest.mark.parametrize(
    "origin", [b"http://app.example.com", b"https://app.example.com:8443", b"https://app.example.com.evil.net"]
)
def test_similar_origins_are_refused(origin: bytes) -> None:
    assert is_cross_site(b"cross-site", origin, {APP}, OWN) is True


def check(*headers: tuple[bytes, bytes], host: bytes = b"service.test", **options: Any) -> bool:
    """Whether the request is accepted."""
    scope = http_scope("POST", b"/fal/queue/submit/x")
    scope["headers"] = [(b"host", host), *headers]
    try:
        CrossSiteCheck(Settings.load(options, {})).check(scope)
    except CrossSite:
        return False
    return True


def test_the_refusal_says_what_to_do() -> None:
    scope = http_scope("POST", b"/fal/queue/submit/x", headers=[(b"origin", EVIL)])
    with pytest.raises(CrossSite, match=r"evil\.example\.net.*cors_origins") as refusal:
        CrossSiteCheck(Settings.load({}, {})).check(scope)
    assert refusal.value.status == 403


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (b"service.test", b"http://service.test"),
        (b"Service.TEST.:80", b"https://service.test"),
        (b"service.test", b"https://service.test:8443"),
        (b"127.0.0.1:8000", b"http://127.0.0.1:3000"),
        (b"[::1]:8000", b"http://[::1]:8000"),
    ],
)
def test_pages_of_the_requested_host_are_accepted(host: bytes, origin: bytes) -> None:
    assert check((b"origin", origin), host=host)
    assert not check((b"origin", b"http://evil.test"), host=host)


def test_a_host_renamed_by_a_proxy() -> None:
    origin = (b"origin", b"https://app.example.com")
    assert not check(origin, host=b"backend:8000")
    assert check(origin, (b"x-forwarded-host", b"app.example.com, edge.internal"), host=b"backend:8000")
    assert check(origin, host=b"backend:8000", public_url="https://app.example.com:8443/api")
    assert check(origin, (b"sec-fetch-site", b"cross-site"), host=b"backend:8000", public_url="https://app.example.com")
    assert check(origin, host=b"backend:8000", fal_hosts="app.example.com:8001")


def test_sec_fetch_site_takes_precedence_over_forwarded_hosts() -> None:
    headers = ((b"origin", EVIL), (b"sec-fetch-site", b"cross-site"), (b"x-forwarded-host", b"evil.example.net"))
    assert not check(*headers)


def test_an_invalid_host_matches_no_origin() -> None:
    assert not check((b"origin", b"http://"), host=b"")
    assert not check((b"origin", b"null"), host=b"null")
