"""Headers that applications trust because the proxy in front of them sets them: the client's address, certificate or user.

A proxy sets or removes these headers of each request that passes through it. Headers inside a request's body, such as those
of a task, pass through no proxy, so they must not contain any of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

Pairs = tuple[tuple[bytes, bytes], ...]

_CLIENT = (
    # Address, scheme and host of the client's connection.
    "forwarded",  # RFC 7239
    "x-forwarded", "x-forwarded-*", "forwarded-for",  # nginx, Apache, HAProxy, Traefik, Caddy; oauth2-proxy's -User, -Email
    "x-original-forwarded-for", "x-original-host",  # ingress-nginx; Azure Application Gateway
    "x-real-*", "client-ip", "x-client-ip", "x-cluster-client-ip", "x-originating-ip", "proxy-client-ip", "x-proxyuser-ip",
    "x-scheme", "x-url-scheme", "x-host", "front-end-https", "wl-proxy-*",
    "true-client-ip", "akamai-*", "x-akamai-*",  # Akamai, Cloudflare Enterprise
    "cf-*",  # Cloudflare: CF-Connecting-IP, CF-Visitor, Cf-Access-Jwt-Assertion, Cf-Access-Authenticated-User-Email
    "fastly-*", "fly-client-ip", "fly-forwarded-*", "x-nf-client-connection-ip",
    "x-vercel-forwarded-for", "x-vercel-proxied-for", "x-vercel-ip-*",
    "x-azure-clientip", "x-azure-socketip", "x-azure-fdid", "x-arr-ssl",  # Azure Front Door, App Service
    "cloudfront-*", "x-amz-cf-*", "x-amzn-*",  # AWS: CloudFront; load balancers' X-Amzn-Oidc-* and X-Amzn-Mtls-*
    "x-envoy-*",  # X-Envoy-Internal, X-Envoy-External-Address
    # Calls from the platform itself.
    "x-appengine-*", "x-cloudtasks-*", "x-cloudscheduler*",  # Google Cloud
    # The client certificate that a proxy has verified.
    "client-cert", "client-cert-chain",  # RFC 9440
    "x-client-cert*", "x-client-verify", "x-client-dn", "ssl-client-*", "x-ssl-*", "x-arr-clientcert",
    # The user that a proxy has authenticated.
    "remote-*", "x-remote-*",  # Apache, Authelia; Kubernetes: X-Remote-User, -Group, -Extra-*
    "x-webauth-*",  # Grafana's auth proxy
    "x-auth-request-*",  # oauth2-proxy
    "x-authenticated-*", "x-consumer-*", "x-credential-*", "x-anonymous-consumer", "x-userinfo",  # Kong
    "x-authentik-*", "x-pomerium-*", "tailscale-*", "teleport-jwt-assertion",
    "x-goog-authenticated-user-*", "x-goog-iap-jwt-assertion",  # Google Identity-Aware Proxy
    "x-ms-client-principal*", "x-ms-token-*",  # Azure App Service authentication
)  # fmt: skip
"""Headers about the client. A `*` at the end matches any rest."""

_TARGET = (
    "x-original-*", "x-rewrite-*", "x-forwarded-uri", "x-forwarded-method", "x-forwarded-path", "x-envoy-original-*",
)  # fmt: skip
"""Headers about the requested URL, as the proxy received it."""


class ProxyHeaders:
    """The headers of the table and `further` ones; tasks may set those that are `allowed`.

    Both are names in lower case; a `*` at the end of a name matches any rest.
    """

    def __init__(self, further: Iterable[str] = (), allowed: Iterable[str] = ()) -> None:
        self._is_of_client = _matcher((*_CLIENT, *further))
        self._is_allowed = _matcher(allowed)

    def is_reserved(self, name: bytes) -> bool:
        """Whether a task may not set this header. `name` in lower case."""
        return (self._is_of_client(name) or _is_of_target(name)) and not self._is_allowed(name)

    def is_set_by_proxies(self, name: bytes) -> bool:
        """Whether a proxy sets this header, allowed to tasks or not. `name` in lower case."""
        return self._is_of_client(name) or _is_of_target(name)

    def about_client(self, headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
        """The headers that proxies set about the client of a request. Those about its URL apply to that request only."""
        return tuple(pair for pair in headers if self._is_of_client(pair[0]) and not _is_of_target(pair[0]))


def _matcher(patterns: Iterable[str]) -> Callable[[bytes], bool]:
    names, prefixes = set(), []
    for pattern in patterns:
        if pattern.endswith("*"):
            prefixes.append(pattern[:-1].encode("ascii"))
        else:
            names.add(pattern.encode("ascii"))
    known, beginnings = frozenset(names), tuple(prefixes)
    return lambda name: name in known or name.startswith(beginnings)


_is_of_target_listed = _matcher(_TARGET)
_STANDARD = ProxyHeaders()


def _is_of_target(name: bytes) -> bool:
    # Two names with these prefixes describe the client's connection instead.
    return _is_of_target_listed(name) and name not in (b"x-original-forwarded-for", b"x-original-host")


@lru_cache(maxsize=512)
def is_set_by_proxies(name: bytes) -> bool:
    """Whether the table contains this name, in lower case."""
    return _STANDARD.is_set_by_proxies(name)
