"""The table of headers that only proxies set."""

from __future__ import annotations

import pytest

from queue_middleware.asgi.headers import read_headers
from queue_middleware.asgi.proxy_headers import ProxyHeaders

RESERVED = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-user",
    "x-forwarded-client-cert",
    "x-real-ip",
    "x-client-ip",
    "x-original-url",
    "x-original-forwarded-for",
    "x-rewrite-url",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-access-jwt-assertion",
    "fastly-client-ip",
    "fly-client-ip",
    "x-envoy-internal",
    "x-amzn-oidc-data",
    "x-amz-cf-id",
    "x-auth-request-email",
    "x-remote-user",
    "x-remote-group",
    "remote-user",
    "remote-groups",
    "x-webauth-user",
    "x-authenticated-userid",
    "x-goog-authenticated-user-email",
    "x-ms-client-principal-name",
    "tailscale-user-login",
    "x-ssl-client-verify",
    "ssl-client-s-dn",
    "x-client-cert",
    "client-cert",
    "x-appengine-user-ip",
    "x-cloudtasks-queuename",
]
ORDINARY = [
    "authorization",
    "cookie",
    "content-type",
    "accept",
    "x-api-key",
    "x-own",
    "x-request-id",
    "traceparent",
    "idempotency-key",
    "x-goog-api-key",
    "x-amz-date",
    "x-client-version",
    "prefer",
    "host",
]


@pytest.mark.parametrize("name", RESERVED)
def test_headers_of_proxies_are_reserved(name: str) -> None:
    assert ProxyHeaders().is_reserved(name.encode())
    assert not ProxyHeaders(allowed=[name]).is_reserved(name.encode())


@pytest.mark.parametrize("name", ORDINARY)
def test_headers_of_clients_are_not_reserved(name: str) -> None:
    assert not ProxyHeaders().is_reserved(name.encode())


def test_the_operator_can_add_names_and_prefixes() -> None:
    headers = ProxyHeaders(["x-user-id", "x-internal-*"])
    assert headers.is_reserved(b"x-user-id")
    assert headers.is_reserved(b"x-internal-anything")
    assert not headers.is_reserved(b"x-user-identity")


def test_headers_about_the_client_are_forwarded_and_those_about_its_call_are_not() -> None:
    given = (
        (b"x-forwarded-for", b"198.18.0.9"),
        (b"x-forwarded-for", b"10.0.0.1"),
        (b"x-original-url", b"/fal/queue/v1/tasks"),
        (b"x-forwarded-uri", b"/fal/queue/v1/tasks"),
        (b"x-own", b"1"),
        (b"x-user-id", b"7"),
    )
    assert ProxyHeaders(["x-user-id"]).about_client(given) == (given[0], given[1], given[5])


@pytest.mark.parametrize("name", [b"x-remote-user", b"x-forwarded-for"])
def test_connection_cannot_remove_headers_of_a_proxy(name: bytes) -> None:
    """`Connection` may name only headers for the next hop; naming the header of a proxy must not remove it."""
    given = ((b"connection", b"close, x-private, " + name), (b"x-private", b"1"), (name, b"bob"))
    assert read_headers(given).replayed == ((name, b"bob"),)


def test_connection_cannot_remove_headers_that_the_operator_added() -> None:
    given = ((b"connection", b"x-private, x-tenant"), (b"x-private", b"1"), (b"x-tenant", b"acme"))
    assert read_headers(given, ProxyHeaders(["x-tenant"]).is_set_by_proxies).replayed == ((b"x-tenant", b"acme"),)
